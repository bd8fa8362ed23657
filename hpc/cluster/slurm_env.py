"""The place of this process in a SLURM job, from its environment. Imports no torch."""

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from itertools import product

from hpc.cluster.slurm import address

# A process with one of these got its rank from another launcher.
OTHER_LAUNCHERS = frozenset(("RANK", "SUBMITIT_LOCAL_GLOBALID"))
PORTS = (20000, 32000)  # below those that Linux gives to clients


def job_id(environ: Mapping[str, str] = os.environ) -> str:
    """Return the job of this process: `<id>`, or `<array id>_<index>`; empty outside of a job."""
    if environ.get("SLURM_ARRAY_JOB_ID") and environ.get("SLURM_ARRAY_TASK_ID"):
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID", "")


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the enclosing SLURM job's variables."""
    prefixes = ("SLURM_", "SUBMITIT_", "SRUN_", "PMI")
    return {
        name: value
        for name, value in environ.items()
        if name == "SLURM_CONF" or not name.startswith(prefixes)
    }


def restart_count(environ: Mapping[str, str] = os.environ) -> int:
    """Return how often the job was requeued before this start."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0)


def in_step(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether `srun` gave this process its rank.

    The job's variables alone do not show it: a batch script has them too, and torchrun or the ranks of one
    machine may have been started by hand inside a step.
    """
    launched_otherwise = OTHER_LAUNCHERS & environ.keys()
    return not launched_otherwise and environ.get("SLURM_STEP_ID", "").isdigit() and "SLURM_PROCID" in environ


def no_rank() -> None:
    """Mark this process as a typed command, not a rank, even inside a step of `srun --pty bash`."""
    os.environ.pop("SLURM_PROCID", None)


def rank_from_env(environ: Mapping[str, str] = os.environ) -> tuple[int, int, int] | None:
    """Return (rank, world, local rank) of a process of a job step, else None."""
    if not in_step(environ):
        return None
    world = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS") or "1"
    return int(environ["SLURM_PROCID"]), int(world), int(environ.get("SLURM_LOCALID") or 0)


def hosts(text: str) -> list[str]:
    """Expand a node list as SLURM writes it: `n[0-2,7],gpu[01-02]x` -> n0 n1 n2 n7 gpu01x gpu02x."""
    names: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        parts = re.split(r"\[([^\]]*)\]", item)
        choices = [_numbers(part) if place % 2 else [part] for place, part in enumerate(parts)]
        names += ["".join(choice) for choice in product(*choices)]
    return names


def _numbers(text: str) -> list[str]:
    numbers: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers += [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] if dash else [first]
    return numbers


def nodes(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the nodes of this step."""
    text = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or socket.gethostname()
    return hosts(text)


def rendezvous(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return the (address, port) at which the ranks of this step meet, the same on all of them.

    Every restart takes a new port, since that of the last start may not be free yet.
    """
    start = f"{environ.get('SLURM_JOB_ID')} {environ.get('SLURM_STEP_ID')} {restart_count(environ)}"
    low, high = PORTS
    number = int.from_bytes(hashlib.sha256(start.encode()).digest()[:4], "big")
    return address(nodes(environ)[0]), low + number % (high - low)
