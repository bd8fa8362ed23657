"""The place of this process in a SLURM job, from its environment. Imports no torch."""

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from itertools import product

from hpc.cluster.slurm import address

# A process with one of these got its rank from another launcher.
NEARER = frozenset(("RANK", "SUBMITIT_LOCAL_GLOBALID"))
PORTS = (20000, 32000)  # below those that Linux gives to clients


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


def rank_from_env(environ: Mapping[str, str] = os.environ) -> tuple[int, int, int] | None:
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
