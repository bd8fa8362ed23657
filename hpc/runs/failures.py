"""How a run that fails says so: each rank leaves RUN/failures/<attempt>-rank<k>.json, and the run's status names the
guilty one.

The guilty rank is the first that failed by its own fault, or the one that died without a word; the others only lost
it. Imports no torch.
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

PATIENCE = 3.0  # seconds in which a guilty rank leaves its line, or is seen to be dead
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
class Guilty:
    """Who ended the run, and why."""

    rank: int
    message: str


@dataclass
class Place:
    """Where a rank is in its run."""

    rank: int
    world: int = 1
    clock: int | None = None  # None: it does not train yet


def attempt() -> str:
    """A name of this start of the run, the same on all its ranks."""
    if slurm_env.in_step():
        return f"{slurm_env.job_id()}.{slurm_env.restart_count()}.{os.environ.get('SLURM_STEP_ID', '')}"
    names = ("ROSTRO_ATTEMPT", "SUBMITIT_LOCAL_JOB_ID", "MASTER_PORT")  # the last under torchrun
    return next((os.environ[name] for name in names if os.environ.get(name)), str(os.getpid()))


def message_of(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def lost(error: BaseException) -> bool:
    """Whether `error` says no more than that another rank died or went silent."""
    if isinstance(error, LostRank):
        return True
    return not isinstance(error, UserError) and any(word in str(error) for word in LOST)


def leave(run: RunDir, place: Place, error: BaseException) -> None:
    """Write this rank's line; a full disk must not hide the error itself."""
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
    """What a rank left in `path`; None where it is damaged."""
    try:
        line: dict[str, Any] = files.read_json(path, LINE)
    except UserError:
        return None
    return line


def _last_lines(run: RunDir, began: float) -> list[dict[str, Any]]:
    """What the ranks of the newest start left; `began`: when the newest one that got as far as its lock did so."""
    found = [line for path in run.failures.glob("*-rank*.json") if (line := read_line(path))]
    found = sorted((line for line in found if line["time"] > began), key=lambda line: line["time"])
    return [line for line in found if line["attempt"] == found[-1]["attempt"]]


def guilty(run: RunDir) -> Guilty | None:
    """Who ended the last start; None where nobody knows (yet)."""
    status = statusfile.read(run.status_file)
    lines, places = _last_lines(run, status.get("began", 0.0)), run.ranks()
    own = [line for line in lines if not line["lost"]]
    if own:
        return Guilty(own[0]["rank"], own[0]["message"])
    named = [line for line in lines if line.get("lost_rank") is not None]
    if named:  # before the ranks met
        return Guilty(named[0]["lost_rank"], named[0]["message"])
    if not lines:  # all are dead, or all live: of several nobody can tell
        died = status.get("state") in ACTIVE and [alive(*place) for place in places.values()] == [False]
        return Guilty(0, KILLED) if died else None
    if lines[0]["attempt"] != status.get("attempt"):  # it ended before its ranks had met
        places = {}
    missing = set(range(lines[0]["world"])) - {line["rank"] for line in lines}
    living = {rank: alive(*places[rank]) if rank in places else None for rank in sorted(missing)}
    if not living:
        return None
    rank = next((rank for rank, lives in living.items() if lives is False), min(living))
    if SILENT in lines[0]["message"]:  # the first to notice; others may have lost that one
        patience = f"hang_timeout={run.config().hang_timeout} seconds"
        return Guilty(rank, f"it did not answer: it hung, or its node is lost ({patience})")
    return Guilty(rank, KILLED if living[rank] is False else f"{KILLED}, or its node is lost")


def _verdict(run: RunDir) -> str:
    """The line of the run's status when this rank only lost another one."""
    end = time.monotonic() + PATIENCE
    while (found := guilty(run)) is None and time.monotonic() < end:
        time.sleep(0.1)
    go_on = f"see `rostro logs {run.name} rank=guilty`, then `rostro resume {run.name}`"
    if found is None:
        return f"a rank was lost; {go_on}"
    who = "" if found.message.startswith("rank") else f"rank {found.rank}: "
    return f"{who}{found.message}; {go_on}"


def _may_write(run: RunDir) -> bool:
    """Whether this is the run's newest start; one that SLURM requeued need not have taken the lock yet."""
    lock = run.lock.read()
    requeued = slurm_env.in_step() and lock.get("job") == slurm_env.job_id()
    if not run.lock.new_owner() or (requeued and lock.get("slurm_restarts", 0) < slurm_env.restart_count()):
        return True
    return (
        statusfile.read_or_warn(run.status_file).get("attempt") == attempt()
    )  # rank 0 of this start has the lock


@contextlib.contextmanager
def recorded(run: RunDir, rank: int, world: int) -> Iterator[Place]:
    """Errors end the rank with one line and exit code 1; what nobody foresaw leaves its traceback too."""
    place = Place(rank, world)
    try:
        yield place
    except Exception as error:
        mine = _may_write(run)
        if mine:
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
        if rank == writer and mine:
            with contextlib.suppress(OSError, UserError):
                run.write_status(state="failed", message=_verdict(run) if lost(error) else text)
        raise SystemExit(1) from None
