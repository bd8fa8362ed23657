"""Asks SLURM about jobs and nodes. Imports no torch.

States come from the controller (`scontrol`), then from `squeue`, then from accounting: none of the three is
always available. This process's own place in a job: `slurm_env.py`. Who requeues a job, and when:
`hpc/runs/requeue.py`.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping

QUEUED = frozenset(
    ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
)
# The states of a job that runs or will run again.
LIVE = QUEUED | frozenset(
    ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
)
PATIENCE = 10.0  # seconds for an answer of the controller


def ask(*words: str, timeout: float = PATIENCE) -> str | None:
    """Return the output of a SLURM command; None where it is missing, fails, or does not answer in time.

    A user's own formats (SQUEUE_FORMAT, SLURM_TIME_FORMAT=relative) do not reach the command.
    """
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))
    }
    try:
        result = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=environ | {"SLURM_TIME_FORMAT": "standard"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout


def answers() -> bool:
    """Return whether a controller answers, even where jobs cannot be submitted from here."""
    reply = ask("scontrol", "ping", timeout=5) if shutil.which("scontrol") else None
    return reply is not None and re.search(r"\bis UP\b", reply) is not None


def available() -> bool:
    """Return whether jobs can be submitted from here: `sbatch` is on the path and a controller answers."""
    return shutil.which("sbatch") is not None and answers()


def fields(text: str) -> dict[str, str]:
    """Parse the `Key=value` pairs of one line of `scontrol -o show`."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", text))


def job_info(job: str) -> dict[str, str]:
    """Return the controller's record of a job (`123` or `123_4`); {} where it has none or does not answer."""
    lines = (ask("scontrol", "-o", "show", "job", job) or "").splitlines()
    return fields(lines[0]) if lines else {}


def job_state(job: str) -> str | None:
    """Return a job's state in one word (PENDING, RUNNING, COMPLETED, ...); None where it is unknown."""
    state = job_info(job).get("JobState")
    if state:
        return state
    for words in (
        ("squeue", "--noheader", "--jobs", job, "--states", "all", "--format", "%T"),
        ("sacct", "--noheader", "--allocations", "--parsable2", "--format", "State", "--jobs", job),
    ):
        lines = (ask(*words) or "").split("\n")
        if lines[0].strip():
            return lines[0].split()[0].rstrip("+")  # `CANCELLED by 1000`
    return None


def job_word(job: str) -> str | None:
    """Return `job_state` and, where known, why the job waits: `PENDING (PartitionTimeLimit)`."""
    info = job_info(job)
    state, reason = info.get("JobState"), info.get("Reason", "None")
    if state in QUEUED and reason != "None":
        return f"{state} ({reason})"
    return state or job_state(job)


def preempted(info: dict[str, str]) -> bool:
    """Return whether SLURM takes the job's nodes away, or the job's time is over."""
    preempting = info.get("PreemptTime", "None") not in ("None", "")
    return preempting or info.get("JobState") in ("PREEMPTED", "TIMEOUT") or info.get("Reason") == "TimeLimit"


def started(info: Mapping[str, str], key: str = "StartTime") -> float | None:
    """Return the unix time of a job's allocation, or of its `EndTime`; None where it is unknown."""
    try:
        return time.mktime(time.strptime(info[key], "%Y-%m-%dT%H:%M:%S"))
    except (KeyError, ValueError):
        return None


def address(node: str) -> str:
    """Return an address at which other nodes reach `node`: by its name, else the one that SLURM uses."""
    try:
        return socket.gethostbyname(node)
    except OSError:
        return fields(ask("scontrol", "-o", "show", "node", node) or "").get("NodeAddr", node)
