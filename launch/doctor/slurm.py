"""What a SLURM does to runs that must outlive their allocations: judged from its own configuration.

`judge` is pure: `scontrol show config`, partitions and nodes as dictionaries in, findings out. `look` asks SLURM.
How runs are stopped and requeued: `hpc/runs/requeue.py`. What to ask of the admin, as a letter: docs/cluster.md.
"""

import re
import socket
from dataclasses import dataclass, field

from hpc.cluster import slurm
from launch.doctor.finding import HARMFUL, MISSING, NOTE, OK, Finding

Fields = dict[str, str]
NONE = ("", "(null)", "none", "N/A", "NONE")


@dataclass
class Site:
    """What SLURM says of itself."""

    config: Fields
    partitions: list[Fields] = field(default_factory=list)
    nodes: list[Fields] = field(default_factory=list)
    qos: list[Fields] = field(default_factory=list)  # only with accounting


@dataclass(frozen=True)
class Need:
    """What a run needs to end well: seconds for a step and a save, and how it was known."""

    seconds: float
    why: str  # "save_seconds=60"
    warning: int = 120  # cluster.warning: seconds before the time limit at which SLURM signals
    hours: float = 24.0  # length of an allocation
    gpus: int = 0
    partition: str = ""  # to which jobs go; empty: the default one


def look() -> Site | None:
    """Ask the controller; None where none answers."""
    if not slurm.answers():
        return None
    text = slurm.ask("scontrol", "show", "config") or ""
    config = dict(re.findall(r"^(\S+)\s+=[ \t]*(.*?)\s*$", text, re.MULTILINE))
    site = Site(config, _lines("partition"), _lines("node"))
    if config.get("AccountingStorageType", "").endswith("slurmdbd"):
        names = ("Name", "PreemptMode", "GraceTime", "Preempt")
        found = slurm.ask("sacctmgr", "-nP", "show", "qos", f"format={','.join(names)}") or ""
        site.qos = [dict(zip(names, line.split("|"), strict=False)) for line in found.splitlines()]
    return site


def _lines(what: str) -> list[Fields]:
    return [slurm.fields(line) for line in (slurm.ask("scontrol", "-o", "show", what) or "").splitlines()]


def judge(site: Site, need: Need) -> list[Finding]:
    """All findings, in the order of a job's life."""
    return [
        *_partitions(site, need),
        *_nodes(site),
        _gpus(site, need),
        _signals(site, need),
        _kill_wait(site, need),
        *_preemption(site, need),
        _requeue(site),
        *_requeued_twice(site),
        _again_after(site),
        _node_failure(site),
        _left_behind(site),
        *_accounting(site),
    ]


def seconds(text: str) -> int:
    """`30 sec`, `5 min`, `00:01:30`, `1-00:00:00` or a bare number as seconds; -1: not limited."""
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return -1
    days, _, rest = text.partition(" ")[0].rpartition("-")
    parts = [int(part) for part in rest.split(":") if part.isdigit()]
    total = 0
    for part in parts:
        total = total * 60 + part
    return (int(days or 0) * 86400 + total) * (60 if text.endswith("min") else 1)


def _partitions(site: Site, need: Need) -> list[Finding]:
    names = []
    for part in site.partitions:
        star = "*" if part.get("Default") == "YES" else ""
        names.append(f"{part['PartitionName']}{star} ({part.get('TotalNodes', '?')} nodes)")
    found = [Finding(OK, "partitions", ", ".join(names))]
    if not any(part.get("Default") == "YES" for part in site.partitions):
        found.append(
            Finding(
                NOTE, "default partition", "there is none", f"cluster.partition={_first(site)} (site file)"
            )
        )
    for part in site.partitions:
        limit = seconds(part.get("MaxTime", "UNLIMITED"))
        if 0 <= limit < need.hours * 3600:
            chosen = part["PartitionName"] == need.partition or (
                not need.partition and part.get("Default") == "YES"
            )
            text = f"{part['PartitionName']} allows {limit / 3600:.4g} hours, a run asks for {need.hours:g}"
            where = "(or in the site file)" if chosen else "for runs there"
            advice = f"hours={int(limit / 3.6) / 1000:g} {where}"
            found.append(Finding(HARMFUL if chosen else NOTE, "MaxTime", text, advice))
    return found


def _nodes(site: Site) -> list[Finding]:
    out = [n["NodeName"] for n in site.nodes if re.search("DOWN|DRAIN|FAIL|INVAL", n.get("State", ""))]
    if not out:
        return []
    return [Finding(NOTE, "nodes", f"{', '.join(out)} take no jobs", "sinfo -R says why; ask the admin")]


def _first(site: Site) -> str:
    return site.partitions[0]["PartitionName"] if site.partitions else "NAME"


def _gpus(site: Site, need: Need) -> Finding:
    kinds = sorted(
        {word for node in site.nodes for word in re.findall(r"gpu(?::[\w.-]+)?:\d+", node.get("Gres", ""))}
    )
    if "gpu" not in site.config.get("GresTypes", "").split(","):
        return Finding(
            MISSING,
            "GPU plugin",
            "GresTypes names no gpu: SLURM hands out no GPUs, and gpus= is refused",
            "ask the admin: GresTypes=gpu, Gres=gpu:N for the nodes and a gres.conf; until then gpus=0 and "
            "cluster.sbatch={exclusive: true}",
        )
    if not kinds:
        return Finding(
            MISSING,
            "GPU plugin",
            "GresTypes=gpu, but no node has one",
            "ask the admin: Gres=gpu:N on the nodes' line, and a gres.conf",
        )
    if site.config.get("SelectType", "") not in ("select/cons_tres", "(null)", ""):
        return Finding(
            HARMFUL,
            "GPU plugin",
            f"{', '.join(kinds)}, but SelectType={site.config['SelectType']} knows no --gpus-per-node",
            "ask the admin: SelectType=select/cons_tres",
        )
    return Finding(OK, "GPU plugin", f"{', '.join(kinds)} a node: gpus=N asks for them")


def _signals(site: Site, need: Need) -> Finding:
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
    """Twice the need, at least 30, in tens: a figure to ask for."""
    return max(30, int(-(-2 * value // 10)) * 10)


def _kill_wait(site: Site, need: Need) -> Finding:
    wait = seconds(site.config.get("KillWait", "30"))
    if 0 <= wait < need.seconds:
        return Finding(
            HARMFUL,
            "KillWait",
            f"{wait} s from TERM to KILL, a step and a save take {need.seconds:.0f} s ({need.why}): scancel, "
            "`scontrol requeue` and preemption without a grace time lose what was trained since the last save",
            f"ask the admin: KillWait={_round(need.seconds)}; until then end runs with `rostro stop`, and save "
            "more often (save.every; save.mode=async makes that cheap)",
        )
    return Finding(OK, "KillWait", f"{wait} s from TERM to KILL, a step and a save take {need.seconds:.0f} s")


def _preemption(site: Site, need: Need) -> list[Finding]:
    kind = site.config.get("PreemptType", "preempt/none")
    if kind.endswith("/none"):
        return [Finding(OK, "preemption", "off: no job takes the nodes of another")]
    if kind.endswith("/qos"):
        return _preemption_of_qos(site, need)
    found = []
    for part in site.partitions:
        tier = int(part.get("PriorityTier") or 0)
        above = [p for p in site.partitions if int(p.get("PriorityTier") or 0) > tier]
        mode = part.get("PreemptMode") or site.config.get("PreemptMode", "OFF")
        if above and mode != "OFF":
            name = f"partition {part['PartitionName']}"
            found += _grace(name, mode, seconds(part.get("GraceTime", "0")), site, need)
    return found or [Finding(OK, "preemption", "no partition is below another one that may take its nodes")]


def _preemption_of_qos(site: Site, need: Need) -> list[Finding]:
    victims = {name for row in site.qos for name in row.get("Preempt", "").split(",") if name}
    found = []
    for row in site.qos:
        if row["Name"] in victims:
            mode = row.get("PreemptMode", "").upper()
            mode = site.config.get("PreemptMode", "OFF") if mode in ("", "CLUSTER") else mode
            found += _grace(f"qos {row['Name']}", mode, seconds(row.get("GraceTime") or "0"), site, need)
    return found or [Finding(OK, "preemption", "by qos, and no qos may be preempted")]


def _grace(name: str, mode: str, grace: int, site: Site, need: Need) -> list[Finding]:
    """How a job of this partition or qos is preempted, and whether it has time to save."""
    modes = mode.upper().split(",")
    if "CANCEL" in modes:
        found = Finding(
            HARMFUL,
            "PreemptMode",
            f"{name}: preempted jobs are cancelled; one that does not leave within its grace time is not requeued",
            f"ask the admin: PreemptMode=REQUEUE for {name}; until then `rostro resume RUN` submits it again",
        )
    elif "SUSPEND" in modes or "GANG" in modes:
        found = Finding(
            HARMFUL,
            "PreemptMode",
            f"{name}: preempted jobs are suspended: they keep their GPU memory, and their ranks lose each other",
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
                f"{name}: {given} s from TERM to KILL, a step and a save take {need.seconds:.0f} s ({need.why})",
                f"ask the admin: GraceTime={_round(need.seconds)} for {name}; until then save more often "
                "(save.every; save.mode=async makes that cheap)",
            ),
        ]
    return [
        found,
        Finding(OK, "GraceTime", f"{name}: {given} s, a step and a save take {need.seconds:.0f} s"),
    ]


def _requeue(site: Site) -> Finding:
    if site.config.get("JobRequeue", "1").startswith("0"):
        return Finding(
            NOTE,
            "JobRequeue",
            "0: a job that does not ask for it is not requeued after a preemption or a lost node",
            "`rostro submit` and slurm/*.sh ask for it; into scripts of your own put #SBATCH --requeue, or ask the "
            "admin: JobRequeue=1",
        )
    return Finding(OK, "JobRequeue", "1: jobs go back into the queue after a preemption or a lost node")


def _requeued_twice(site: Site) -> list[Finding]:
    codes = site.config.get("RequeueExit", "(null)")
    if codes in NONE:
        return []
    return [
        Finding(
            HARMFUL,
            "RequeueExit",
            f"{codes}: SLURM requeues every job that ends with these codes, for ever, also one that does not advance",
            "ask the admin to leave RequeueExit empty: a run requeues itself, cluster.attempts times without progress",
        )
    ]


def _again_after(site: Site) -> Finding:
    """A requeued job waits until the old credential has expired."""
    found = re.search(r"cred_expire=(\d+)", site.config.get("AuthInfo", ""))
    wait = int(found[1]) if found else 120
    return Finding(OK, "restart", f"a requeued job starts after {wait} s at the earliest (cred_expire)")


def _node_failure(site: Site) -> Finding:
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
        level, advice = NOTE, "ask the admin: SlurmdTimeout=300; a smaller hang_timeout ends the ranks before"
    return Finding(level, "SlurmdTimeout", f"a dead node is noticed after {limit} s", advice)


def _left_behind(site: Site) -> Finding:
    kind = site.config.get("ProctrackType", "")
    if kind.endswith("/pgid"):
        return Finding(
            HARMFUL,
            "ProctrackType",
            f"{kind}: processes that leave their group outlive the job, and keep its GPUs",
            "ask the admin: ProctrackType=proctrack/cgroup",
        )
    return Finding(OK, "ProctrackType", f"{kind}: nothing of a job outlives it")


def _accounting(site: Site) -> list[Finding]:
    kind = site.config.get("AccountingStorageType", "").rpartition("/")[2]
    keep = seconds(site.config.get("MinJobAge", "300"))
    if kind in ("none", "", "(null)"):
        return [
            Finding(
                MISSING,
                "accounting",
                f"off: sacct knows nothing, and the controller forgets a job {keep} s after its end",
                "leave cluster.account out; `rostro status` asks scontrol, and a run keeps its own account",
            )
        ]
    found = [Finding(OK, "accounting", f"{kind}: sacct keeps the ends of jobs")]
    if "associations" in site.config.get("AccountingStorageEnforce", ""):
        found.append(
            Finding(
                NOTE,
                "account",
                "jobs must name an account",
                "cluster.account=NAME (site file); `sacctmgr show associations user=$USER` lists yours",
            )
        )
    return found


def elsewhere(site: Site) -> bool:
    """Whether a node of SLURM is another machine than this one, so that folders must be shared."""
    here = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    return any(node.get("NodeHostName", "") not in here for node in site.nodes)
