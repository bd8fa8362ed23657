"""How a run that fails says so: each rank leaves one line in RUN/failures, and the run's status names the guilty one.

The guilty rank is the first that failed by its own fault, or the one that died without a word; the others only lost
it. Imports no torch.
"""

import contextlib
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from hpc.errors import UserError
from hpc.rundir import RunDir, alive, read_json, write_json

PATIENCE = 3.0  # seconds in which a guilty rank leaves its line, or is seen to be dead
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out waiting",
    "Broken pipe",
    "NCCL",
    "gloo",
)


@dataclass(frozen=True)
class Guilty:
    """Who ended the run, and why."""

    rank: int
    message: str


def message_of(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def lost(error: BaseException) -> bool:
    """Whether `error` says no more than that another rank died or went silent."""
    return not isinstance(error, UserError) and any(word in str(error) for word in LOST)


def clear(run: RunDir) -> None:
    """Forget the failures of the start before (rank 0, before the ranks meet)."""
    for left in run.failures.glob("rank*.json"):
        left.unlink(missing_ok=True)


def leave(run: RunDir, rank: int, error: BaseException) -> None:
    """Write this rank's line; a full disk must not hide the error itself."""
    with contextlib.suppress(OSError):
        run.failures.mkdir(exist_ok=True)
        line = {"rank": rank, "time": time.time(), "message": message_of(error), "lost": lost(error)}
        write_json(run.failures / f"rank{rank}.json", line)


def guilty(run: RunDir) -> Guilty | None:
    """Who ended the last start; None where nobody knows (yet)."""
    lines = [read_json(path) for path in run.failures.glob("rank*.json")]
    own = sorted((line for line in lines if line and not line["lost"]), key=lambda line: line["time"])
    if own:
        return Guilty(own[0]["rank"], own[0]["message"])
    told = {line["rank"] for line in lines if line}
    silent = [rank for rank, place in sorted(run.ranks().items()) if rank not in told]
    dead = [rank for rank in silent if alive(*run.ranks()[rank]) is False]
    if told and dead:
        return Guilty(dead[0], "it died without a word: killed by a signal, or out of memory")
    if told and silent:
        waits = "it does not answer: it hangs, or its node is lost"
        return Guilty(silent[0], f"{waits} (hang_timeout={run.config().hang_timeout} seconds)")
    return None


def _verdict(run: RunDir) -> str:
    """The line of the run's status when this rank only lost another one."""
    end = time.monotonic() + PATIENCE
    while (found := guilty(run)) is None and time.monotonic() < end:
        time.sleep(0.1)
    go_on = f"see `rostro logs {run.name} rank=guilty`, then `rostro resume {run.name}`"
    return f"rank {found.rank}: {found.message}; {go_on}" if found else f"a rank was lost; {go_on}"


@contextlib.contextmanager
def recorded(run: RunDir, rank: int) -> Iterator[None]:
    """Errors end the rank with one line and exit code 1; what nobody foresaw leaves its traceback too."""
    try:
        yield
    except Exception as error:
        mine = not run.lost_to()
        if mine:
            leave(run, rank, error)
        text = message_of(error)
        if lost(error):
            text = f"rank {rank} lost another rank ({text[:200]})"
        elif not isinstance(error, UserError):
            traceback.print_exc()
            text = f"{type(error).__name__}: {text}"
        print(f"error: {text}", file=sys.stderr, flush=True)
        if rank == 0 and mine:
            with contextlib.suppress(OSError, UserError):
                run.write_status(state="failed", message=_verdict(run) if lost(error) else text)
        raise SystemExit(1) from None
