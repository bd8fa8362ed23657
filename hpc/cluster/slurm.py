"""What SLURM says of a job, and what this process' place in a job is. Imports no torch.

States come from the controller (`scontrol`), then from `squeue`, then from accounting where there is one: none of
them is always there. Who requeues a job, and when: `hpc/runs/requeue.py`.
"""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from itertools import product

QUEUED = frozenset(
    ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
)
LIVE = QUEUED | frozenset(
    ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
)  # states of a job that runs, or will run again
# Who has one of these has its rank from somebody else.
NEARER = frozenset(("RANK", "SUBMITIT_LOCAL_GLOBALID"))
PATIENCE = 10.0  # seconds for an answer of the controller
PORTS = (20000, 32000)  # below those that Linux gives to clients


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


def job_id(environ: Mapping[str, str] = os.environ) -> str:
    """The job that this process belongs to: `<id>`, or `<array id>_<index>`; empty outside of one."""
    if environ.get("SLURM_ARRAY_JOB_ID") and environ.get("SLURM_ARRAY_TASK_ID"):
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID", "")


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without those of the job in which somebody types a command: a new run is no part of it."""
    own = ("SLURM_", "SUBMITIT_", "SRUN_", "PMI")
    return {
        name: value for name, value in environ.items() if name == "SLURM_CONF" or not name.startswith(own)
    }


def restart_count(environ: Mapping[str, str] = os.environ) -> int:
    """How often the job was requeued before this start."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0)


def in_step(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `srun` gave this process its rank. A batch script has the job's variables too; torchrun, or ranks of one
    machine, may have been started by hand in a step.
    """
    nearer = NEARER & environ.keys()
    return not nearer and environ.get("SLURM_STEP_ID", "").isdigit() and "SLURM_PROCID" in environ


def no_rank() -> None:
    """Say that this process is a command that somebody typed: no rank, though in a step of `srun --pty bash`."""
    os.environ.pop("SLURM_PROCID", None)


def place(environ: Mapping[str, str] = os.environ) -> tuple[int, int, int] | None:
    """(rank, world, local rank) of a process of a job step, else None."""
    if not in_step(environ):
        return None
    world = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS") or "1"
    return int(environ["SLURM_PROCID"]), int(world), int(environ.get("SLURM_LOCALID") or 0)


def hosts(text: str) -> list[str]:
    """The nodes of a list as SLURM writes it: `n[0-2,7],gpu[01-02]x` -> n0 n1 n2 n7 gpu01x gpu02x."""
    found: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        parts = re.split(r"\[([^\]]*)\]", item)
        choices = [_numbers(part) if place % 2 else [part] for place, part in enumerate(parts)]
        found += ["".join(choice) for choice in product(*choices)]
    return found


def _numbers(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] if dash else [first]
    return found


def address(node: str) -> str:
    """An address at which the other nodes find `node`: by its name, else as SLURM itself reaches it."""
    try:
        return socket.gethostbyname(node)
    except OSError:
        return fields(ask("scontrol", "-o", "show", "node", node) or "").get("NodeAddr", node)


def nodes(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The nodes of this step."""
    text = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or socket.gethostname()
    return hosts(text)


def rendezvous(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """(address, port) at which the ranks of this step meet: the same on all of them, new at every restart.

    A new port, since that of the last start may not be free yet.
    """
    start = f"{environ.get('SLURM_JOB_ID')} {environ.get('SLURM_STEP_ID')} {restart_count(environ)}"
    low, high = PORTS
    number = int.from_bytes(hashlib.sha256(start.encode()).digest()[:4], "big")
    return address(nodes(environ)[0]), low + number % (high - low)
