"""Whether a job that ended goes back into the queue, and who puts it there: one owner, once. Imports no torch.

The owner is the batch script (`launch/batch.py`) or, under submitit, rank 0. SLURM requeues by itself after
`scontrol requeue` and after a lost node; the owner after the time limit's signal, after a preemption (a job that
leaves within its grace time counts as completed: SLURM requeues only those that it had to kill) and after a crash.
"""

import sys
import time
from typing import Any

from data_shards.files import FileError, MissingFile, read_json, write_json
from hpc.cluster import slurm
from hpc.cluster.signals import TIME
from hpc.runs import status as statusfile
from hpc.runs.run_dir import RunDir

STARTS = {"clock": int, "count": range(1 << 32)}


def newest(run: RunDir) -> int:
    """Clock of the newest checkpoint, -1 without one. Only what was saved counts as progress."""
    names = [path.name for path in run.checkpoints.glob("*") if path.name.isascii() and path.name.isdigit()]
    return max(map(int, names), default=-1)


def begin(run: RunDir) -> None:
    """Count this start: how many in a row began at the same clock."""
    before, clock = _starts(run), newest(run)
    same = before.get("clock") == clock
    write_json(run.starts_file, {"clock": clock, "count": before["count"] + 1 if same else 1})


def _starts(run: RunDir) -> dict[str, int]:
    """What `begin` wrote; {} where it did not, or with a warning where the file is damaged: it counts anew."""
    try:
        found: dict[str, int] = read_json(run.starts_file, STARTS, remedy="it is counted anew")
    except MissingFile:
        return {}
    except FileError as error:
        print(f"warning: {error}", file=sys.stderr)
        return {}
    return found


def forget(run: RunDir) -> None:
    """A person starts the run: earlier failures and requests to stop count no more."""
    run.starts_file.unlink(missing_ok=True)
    run.stop_file.unlink(missing_ok=True)


def stuck(run: RunDir, attempts: int) -> str:
    """Why the run must not be started once more; empty while it advances."""
    starts = _starts(run)
    if not starts or newest(run) > starts["clock"] or starts["count"] < attempts:
        return ""
    where = f"clock {starts['clock']:,}" if starts["clock"] >= 0 else "the beginning"
    return (
        f"{starts['count']} starts in a row saved nothing beyond {where} (cluster.attempts={attempts}): see "
        f"{run.logs}, then `rostro resume {run.name}`"
    )


def known(job: str, *, patience: float = 180.0) -> dict[str, str]:
    """`slurm.job_info` of a job that is there; {} only where the controller is silent for `patience` seconds."""
    end = time.monotonic() + patience
    while not (info := slurm.job_info(job)) and time.monotonic() < end:
        time.sleep(2.0)
    return info


def cancelled(info: dict[str, str]) -> bool:
    """Whether somebody took the job away for good; while its script is still there it is shown as COMPLETING."""
    return info.get("JobState") in ("CANCELLED", "COMPLETING") and not slurm.preempted(info)


def wanted(run: RunDir, *, crashed: bool, job: str, restart: int, attempts: int) -> tuple[bool, str]:
    """(whether the owner must requeue the job now, why not: for the run's status)."""
    if run.stop_file.exists():
        return False, ""
    status = statusfile.read_or_warn(run.status_file)
    if not crashed and status.get("state") == "finished":
        return False, ""
    info = known(job)
    if int(info.get("Restarts", restart)) > restart:  # somebody did it already
        return False, ""
    if cancelled(info):
        return False, ""
    # `rostro stop`, scancel. Where nobody answers the job is requeued: SLURM refuses what it has ended itself.
    if info and not crashed and status.get("asked") != TIME and not slurm.preempted(info):
        return False, ""
    why = stuck(run, attempts)
    return not why, why


def requeue(job: str, *, patience: float = 60.0) -> bool:
    """Put the job back into the queue; it ends this process in a moment. False where SLURM refuses."""
    if slurm.ask("scontrol", "requeue", job, timeout=30) is None:
        return False
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(0.5)
    return True


def failed(run: RunDir, why: str, **more: Any) -> None:
    """Say in the run's status that nobody starts it again by himself."""
    run.write_status(state="failed", message=why, **more)


AGAIN = 10  # exit code of `end`: into the queue once more
