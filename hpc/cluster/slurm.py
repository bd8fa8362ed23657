"""What SLURM says of a job, and what this process' place in a job is. Imports no torch.

States come from the controller (`scontrol`), then from `squeue`, then from accounting where there is one: none of
them is always there. Who requeues a job, and when: `hpc/runs/requeue.py`.
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
LIVE = QUEUED | frozenset(
    ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
)  # states of a job that runs, or will run again
PATIENCE = 10.0  # seconds for an answer of the controller


def ask(*words: str, timeout: float = PATIENCE) -> str | None:
    """Output of a SLURM command; None where it is missing, fails, or gives no answer in time.

    A user's own formats (SQUEUE_FORMAT, SLURM_TIME_FORMAT=relative) do not reach it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    try:
        found = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=kept | {"SLURM_TIME_FORMAT": "standard"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout


def answers() -> bool:
    """Whether a controller answers. It need not be possible to submit from here."""
    found = ask("scontrol", "ping", timeout=5) if shutil.which("scontrol") else None
    return found is not None and re.search(r"\bis UP\b", found) is not None


def available() -> bool:
    """Whether jobs can be submitted from here: `sbatch` is on the path and a controller answers."""
    return shutil.which("sbatch") is not None and answers()


def fields(text: str) -> dict[str, str]:
    """The `Key=value` pairs of one line of `scontrol -o show`."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", text))


def job_info(job: str) -> dict[str, str]:
    """What the controller knows of a job (`123` or `123_4`); {} where it forgot it or does not answer."""
    lines = (ask("scontrol", "-o", "show", "job", job) or "").splitlines()
    return fields(lines[0]) if lines else {}


def job_state(job: str) -> str | None:
    """State of a job in one word (PENDING, RUNNING, COMPLETED, FAILED, ...); None: unknown or forgotten."""
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
    """`job_state`, and why a job waits where the controller says it: `PENDING (PartitionTimeLimit)`."""
    info = job_info(job)
    state, reason = info.get("JobState"), info.get("Reason", "None")
    if state in QUEUED and reason != "None":
        return f"{state} ({reason})"
    return state or job_state(job)


def preempted(info: dict[str, str]) -> bool:
    """Whether SLURM takes the job's nodes away, or its time is over."""
    taken = info.get("PreemptTime", "None") not in ("None", "")
    return taken or info.get("JobState") in ("PREEMPTED", "TIMEOUT") or info.get("Reason") == "TimeLimit"


def started(info: Mapping[str, str], key: str = "StartTime") -> float | None:
    """Unix time at which a job's nodes were given to it (`EndTime`: taken back), as `job_info` says; None where it
    does not.
    """
    try:
        return time.mktime(time.strptime(info[key], "%Y-%m-%dT%H:%M:%S"))
    except (KeyError, ValueError):
        return None


def address(node: str) -> str:
    """An address at which the other nodes find `node`: by its name, else as SLURM itself reaches it."""
    try:
        return socket.gethostbyname(node)
    except OSError:
        return fields(ask("scontrol", "-o", "show", "node", node) or "").get("NodeAddr", node)
