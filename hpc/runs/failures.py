"""Records how a run fails: each rank leaves RUN/failures/<attempt>-rank<k>.json.

The root cause is the first rank that failed by its own error, or the one that died without a record; the
other ranks only lost the connection to it. Imports no torch.
"""

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards import files
from data_shards.errors import LostRank, UserError
from data_shards.files import write_json
from hpc.cluster import slurm_env
from hpc.runs import status as statusfile
from hpc.runs.processes import alive
from hpc.runs.run_dir import ACTIVE, RunDir

PATIENCE = 3.0  # seconds in which the rank that failed leaves its record, or is seen to be dead
SILENT = "Timed out waiting"
LOST = (SILENT, "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
LINE = {
    "attempt": str,
    "rank": range(1 << 20),
    "world": range(1 << 20),
    "time": float,
    "message": str,
    "lost": bool,
    "lost_rank?": (int, None),
}
KILLED = "it died without a word: killed by a signal, or out of memory"


@dataclass(frozen=True)
class RootCause:
    """The rank that ended the run, and its error."""

    rank: int
    message: str


@dataclass
class Place:
    """A rank and the clock that it has reached."""

    rank: int
    world: int = 1
    clock: int | None = None  # None = it does not train yet


def attempt() -> str:
    """Return the name of this start of the run, the same on all its ranks."""
    if slurm_env.in_step():
        return f"{slurm_env.job_id()}.{slurm_env.restart_count()}.{os.environ.get('SLURM_STEP_ID', '')}"
    names = ("ROSTRO_ATTEMPT", "SUBMITIT_LOCAL_JOB_ID", "MASTER_PORT")  # the last under torchrun
    return next((os.environ[name] for name in names if os.environ.get(name)), str(os.getpid()))


def message_of(error: BaseException) -> str:
    """Return the error's text on one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def lost(error: BaseException) -> bool:
    """Return whether `error` says no more than that another rank died or went silent."""
    if isinstance(error, LostRank):
        return True
    return not isinstance(error, UserError) and any(word in str(error) for word in LOST)


def leave(run: RunDir, place: Place, error: BaseException) -> None:
    """Write this rank's record of `error`; a full disk must not hide the error itself."""
    line = {
        "attempt": attempt(),
        "rank": place.rank,
        "world": place.world,
        "host": socket.gethostname(),
        "time": time.time(),
        "clock": place.clock,
        "error": type(error).__name__,
        "message": message_of(error),
        "lost": lost(error),
        "lost_rank": error.rank if isinstance(error, LostRank) else None,
    }
    with contextlib.suppress(OSError):
        run.failures.mkdir(exist_ok=True)
        write_json(run.failures / f"{line['attempt']}-rank{place.rank}.json", line)


def read_line(path: Path) -> dict[str, Any] | None:
    """Read the record of a rank; None where it is damaged."""
    try:
        line: dict[str, Any] = files.read_json(path, LINE)
    except UserError:
        return None
    return line


def _last_lines(run: RunDir, began: float) -> list[dict[str, Any]]:
    """Return the records of the newest start; `began`: when the last start that took the lock did so."""
    lines = [line for path in run.failures.glob("*-rank*.json") if (line := read_line(path))]
    lines = sorted((line for line in lines if line["time"] > began), key=lambda line: line["time"])
    return [line for line in lines if line["attempt"] == lines[-1]["attempt"]]


def root_cause(run: RunDir) -> RootCause | None:
    """Return the rank that ended the last start, and its error; None where it is not known (yet)."""
    status = statusfile.read(run.status_file)
    lines, places = _last_lines(run, status.get("began", 0.0)), run.ranks()
    own_errors = [line for line in lines if not line["lost"]]
    if own_errors:
        return RootCause(own_errors[0]["rank"], own_errors[0]["message"])
    named = [line for line in lines if line.get("lost_rank") is not None]
    if named:  # the start ended before its ranks had met
        return RootCause(named[0]["lost_rank"], named[0]["message"])
    if not lines:  # a lone rank may have been killed; among several none can be singled out
        died = status.get("state") in ACTIVE and [alive(*place) for place in places.values()] == [False]
        return RootCause(0, KILLED) if died else None
    if lines[0]["attempt"] != status.get("attempt"):  # the places are those of an earlier start
        places = {}
    missing = set(range(lines[0]["world"])) - {line["rank"] for line in lines}
    living = {rank: alive(*places[rank]) if rank in places else None for rank in sorted(missing)}
    if not living:
        return None
    rank = next((rank for rank, lives in living.items() if lives is False), min(living))
    if SILENT in lines[0]["message"]:  # by the first to notice: later ranks may have lost that one instead
        patience = f"hang_timeout={run.config().hang_timeout} seconds"
        return RootCause(rank, f"it did not answer: it hung, or its node is lost ({patience})")
    return RootCause(rank, KILLED if living[rank] is False else f"{KILLED}, or its node is lost")


def _status_message(run: RunDir) -> str:
    """Return the message of the run's status when this rank only lost another one."""
    end = time.monotonic() + PATIENCE
    while (cause := root_cause(run)) is None and time.monotonic() < end:
        time.sleep(0.1)
    remedy = f"see `rostro logs {run.name} rank=failed`, then `rostro resume {run.name}`"
    if cause is None:
        return f"a rank was lost; {remedy}"
    who = "" if cause.message.startswith("rank") else f"rank {cause.rank}: "
    return f"{who}{cause.message}; {remedy}"


def _may_write(run: RunDir) -> bool:
    """Return whether this is the run's newest start, which may not have the lock yet after a requeue."""
    lock = run.ownership.read()
    requeued = slurm_env.in_step() and lock.get("job") == slurm_env.job_id()
    earlier = lock.get("slurm_restarts", 0) < slurm_env.restart_count()
    if not run.ownership.new_owner() or (requeued and earlier):
        return True
    # Rank 0 of this start may have the lock.
    return statusfile.read_or_warn(run.status_file).get("attempt") == attempt()


@contextlib.contextmanager
def recorded(run: RunDir, rank: int, world: int) -> Iterator[Place]:
    """End the rank on an error with one line and exit code 1; an unforeseen one leaves a traceback too."""
    place = Place(rank, world)
    try:
        yield place
    except Exception as error:
        may_write = _may_write(run)
        if may_write:
            leave(run, place, error)
        text = message_of(error)
        if isinstance(error, LostRank):
            pass
        elif lost(error):
            text = f"rank {rank} lost another rank ({text[:200]})"
        elif not isinstance(error, UserError):
            traceback.print_exc()
            text = f"{type(error).__name__}: {text}"
        print(f"error: {text}", file=sys.stderr, flush=True)
        writer = 1 if isinstance(error, LostRank) and error.rank == 0 else 0
        if rank == writer and may_write:
            with contextlib.suppress(OSError, UserError):
                run.write_status(state="failed", message=_status_message(run) if lost(error) else text)
        raise SystemExit(1) from None
