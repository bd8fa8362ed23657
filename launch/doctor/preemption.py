"""Findings on whether a run outlives its allocations: signals, preemption, requeueing, lost nodes."""

import re

from launch.doctor.finding import HARMFUL, NOTE, OK, Finding
from launch.doctor.site import NONE, Need, Site, seconds


def signals(site: Site, need: Need) -> Finding:
    """Judge the warning before the time limit."""
    text = f"SLURM signals {need.warning} s before the time limit (cluster.warning={need.warning})"
    if need.warning < need.seconds:
        return Finding(
            HARMFUL,
            "warning",
            f"{text}, a step and a save take {need.seconds:.0f} s ({need.why})",
            f"cluster.warning={_round(need.seconds)}, and with sbatch --signal=B:USR1@{_round(need.seconds)}",
        )
    return Finding(OK, "warning", text)


def _round(value: float) -> int:
    """Return a value to ask for: twice the need, at least 30, in tens."""
    return max(30, int(-(-2 * value // 10)) * 10)


def kill_wait(site: Site, need: Need) -> Finding:
    """Judge the time from TERM to KILL."""
    wait = seconds(site.config.get("KillWait", "30"))
    if 0 <= wait < need.seconds:
        return Finding(
            HARMFUL,
            "KillWait",
            f"{wait} s from TERM to KILL, a step and a save take {need.seconds:.0f} s "
            f"({need.why}): scancel, `scontrol requeue` and preemption without a grace time lose what was "
            "trained since the last save",
            f"ask the admin: KillWait={_round(need.seconds)}; until then end runs with `rostro stop`, and "
            "save more often (save.every; save.mode=async makes that cheap)",
        )
    return Finding(OK, "KillWait", f"{wait} s from TERM to KILL, a step and a save take {need.seconds:.0f} s")


def preemption(site: Site, need: Need) -> list[Finding]:
    """Judge how each partition is preempted."""
    kind = site.config.get("PreemptType", "preempt/none")
    if kind.endswith("/none"):
        return [Finding(OK, "preemption", "off: no job takes the nodes of another")]
    if kind.endswith("/qos"):
        return preemption_of_qos(site, need)
    found = []
    for part in site.partitions:
        tier = int(part.get("PriorityTier") or 0)
        above = [p for p in site.partitions if int(p.get("PriorityTier") or 0) > tier]
        mode = part.get("PreemptMode") or site.config.get("PreemptMode", "OFF")
        if above and mode != "OFF":
            name = f"partition {part['PartitionName']}"
            found += grace(name, mode, seconds(part.get("GraceTime", "0")), site, need)
    return found or [Finding(OK, "preemption", "no partition is below another one that may take its nodes")]


def preemption_of_qos(site: Site, need: Need) -> list[Finding]:
    """Judge how each qos is preempted."""
    victims = {name for row in site.qos for name in row.get("Preempt", "").split(",") if name}
    found = []
    for row in site.qos:
        if row["Name"] in victims:
            mode = row.get("PreemptMode", "").upper()
            mode = site.config.get("PreemptMode", "OFF") if mode in ("", "CLUSTER") else mode
            found += grace(f"qos {row['Name']}", mode, seconds(row.get("GraceTime") or "0"), site, need)
    return found or [Finding(OK, "preemption", "by qos, and no qos may be preempted")]


def grace(name: str, mode: str, grace: int, site: Site, need: Need) -> list[Finding]:
    """Judge how a job of this partition or qos is preempted, and whether it has time to save."""
    modes = mode.upper().split(",")
    if "CANCEL" in modes:
        found = Finding(
            HARMFUL,
            "PreemptMode",
            f"{name}: preempted jobs are cancelled; one that does not leave within its grace time is not "
            "requeued",
            f"ask the admin: PreemptMode=REQUEUE for {name}; until then `rostro resume RUN` submits it again",
        )
    elif "SUSPEND" in modes or "GANG" in modes:
        found = Finding(
            HARMFUL,
            "PreemptMode",
            f"{name}: preempted jobs are suspended: they keep their GPU memory, and their ranks lose each "
            "other",
            f"ask the admin: PreemptMode=REQUEUE for {name}; until then another partition",
        )
        return [found]
    else:
        found = Finding(OK, "PreemptMode", f"{name}: preempted jobs are requeued")
    time = grace if grace > 0 else max(0, seconds(site.config.get("KillWait", "30")))
    given = f"GraceTime={grace}" if grace > 0 else f"GraceTime=0, so KillWait={time}"
    if time < need.seconds:
        return [
            found,
            Finding(
                HARMFUL,
                "GraceTime",
                f"{name}: {given} s from TERM to KILL, a step and a save take {need.seconds:.0f} s "
                f"({need.why})",
                f"ask the admin: GraceTime={_round(need.seconds)} for {name}; until then save more often "
                "(save.every; save.mode=async makes that cheap)",
            ),
        ]
    return [
        found,
        Finding(OK, "GraceTime", f"{name}: {given} s, a step and a save take {need.seconds:.0f} s"),
    ]


def requeue(site: Site) -> Finding:
    """Judge whether jobs are requeued by default."""
    if site.config.get("JobRequeue", "1").startswith("0"):
        return Finding(
            NOTE,
            "JobRequeue",
            "0: a job that does not ask for it is not requeued after a preemption or a lost node",
            "`rostro submit` and slurm/*.sh ask for it; put #SBATCH --requeue into scripts of your own, or "
            "ask the admin: JobRequeue=1",
        )
    return Finding(OK, "JobRequeue", "1: jobs go back into the queue after a preemption or a lost node")


def requeued_twice(site: Site) -> list[Finding]:
    """Judge whether SLURM requeues jobs on its own account."""
    codes = site.config.get("RequeueExit", "(null)")
    if codes in NONE:
        return []
    return [
        Finding(
            HARMFUL,
            "RequeueExit",
            f"{codes}: SLURM requeues every job that ends with these codes without end, also one that does "
            "not advance",
            "ask the admin to leave RequeueExit empty: a run requeues itself, at most cluster.attempts times "
            "without progress",
        )
    ]


def again_after(site: Site) -> Finding:
    """Tell how long a requeued job waits: until the old credential has expired."""
    found = re.search(r"cred_expire=(\d+)", site.config.get("AuthInfo", ""))
    wait = int(found[1]) if found else 120
    return Finding(OK, "restart", f"a requeued job starts after {wait} s at the earliest (cred_expire)")


def node_failure(site: Site) -> Finding:
    """Judge whether a dead node is noticed."""
    limit = seconds(site.config.get("SlurmdTimeout", "300"))
    if limit == 0:
        return Finding(
            HARMFUL,
            "SlurmdTimeout",
            "0: SLURM never notices a dead node, and its job hangs",
            "ask the admin: SlurmdTimeout=300; hang_timeout=600 ends the ranks until then",
        )
    level, advice = OK, ""
    if limit > 900:
        level = NOTE
        advice = "ask the admin: SlurmdTimeout=300; a smaller hang_timeout ends the ranks before"
    return Finding(level, "SlurmdTimeout", f"a dead node is noticed after {limit} s", advice)


def left_behind(site: Site) -> Finding:
    """Judge whether processes can outlive their job."""
    kind = site.config.get("ProctrackType", "")
    if kind.endswith("/pgid"):
        return Finding(
            HARMFUL,
            "ProctrackType",
            f"{kind}: processes that leave their group outlive the job, and keep its GPUs",
            "ask the admin: ProctrackType=proctrack/cgroup",
        )
    return Finding(OK, "ProctrackType", f"{kind}: nothing of a job outlives it")
