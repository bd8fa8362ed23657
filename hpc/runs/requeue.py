"""Decides whether a job that ended goes back into the queue; one owner puts it there, once. Imports no torch.

The owner is the batch script (`launch/batch.py`) or, under submitit, rank 0. SLURM itself requeues after
`scontrol requeue` and after a lost node. The owner requeues after the time limit's signal, after a crash, and
after a preemption: a job that leaves within its grace time counts as completed, and SLURM requeues only those
it killed.
"""

import sys
import time
from typing import Any

from data_shards.files import FileError, MissingFile, read_json, write_json
from hpc.cluster import slurm
from hpc.cluster.signals import StopReason
from hpc.runs import status as statusfile
from hpc.runs.run_dir import RunDir

STARTS = {"clock": int, "count": range(1 << 32)}


def newest_clock(run: RunDir) -> int:
    """Return the clock of the newest checkpoint, -1 without one. Only what was saved counts as progress."""
    names = [path.name for path in run.checkpoints.glob("*") if path.name.isascii() and path.name.isdigit()]
    return max(map(int, names), default=-1)


def count_start(run: RunDir) -> None:
    """Count this start among those in a row that began at the same clock."""
    before, clock = _starts(run), newest_clock(run)
    same = before.get("clock") == clock
    write_json(run.starts_file, {"clock": clock, "count": before["count"] + 1 if same else 1})


def _starts(run: RunDir) -> dict[str, int]:
    """Read what `count_start` wrote; {} without the file, or with a warning where it is damaged."""
    try:
        starts: dict[str, int] = read_json(run.starts_file, STARTS, remedy="it is counted anew")
    except MissingFile:
        return {}
    except FileError as error:
        print(f"warning: {error}", file=sys.stderr)
        return {}
    return starts


def forget_failures(run: RunDir) -> None:
    """Drop earlier failures and requests to stop: a person starts the run anew."""
    run.starts_file.unlink(missing_ok=True)
    run.stop_file.unlink(missing_ok=True)


def stuck_reason(run: RunDir, attempts: int) -> str:
    """Return why the run must not be started once more; empty while it advances."""
    starts = _starts(run)
    if not starts or newest_clock(run) > starts["clock"] or starts["count"] < attempts:
        return ""
    where = f"clock {starts['clock']:,}" if starts["clock"] >= 0 else "the beginning"
    return (
        f"{starts['count']} starts in a row saved nothing beyond {where} (cluster.attempts={attempts}): see "
        f"{run.logs}, then `rostro resume {run.name}`"
    )


def existing_job(job: str, *, patience: float = 180.0) -> dict[str, str]:
    """Return `slurm.job_info` of an existing job; {} after `patience` seconds without an answer."""
    end = time.monotonic() + patience
    while not (info := slurm.job_info(job)) and time.monotonic() < end:
        time.sleep(2.0)
    return info


def is_cancelled(info: dict[str, str]) -> bool:
    """Return whether the job was cancelled for good; SLURM shows COMPLETING while its script still runs."""
    return info.get("JobState") in ("CANCELLED", "COMPLETING") and not slurm.preempted(info)


def decision(run: RunDir, *, crashed: bool, job: str, restart: int, attempts: int) -> tuple[bool, str]:
    """Return whether the owner must requeue the job now and, for the run's status, why not."""
    if run.stop_file.exists():
        return False, ""
    status = statusfile.read_or_warn(run.status_file)
    if not crashed and status.get("state") == "finished":
        return False, ""
    info = existing_job(job)
    if int(info.get("Restarts", restart)) > restart:  # it was requeued already
        return False, ""
    if is_cancelled(info):
        return False, ""
    # The run left on request (`rostro stop`, scancel). Without an answer of the controller the job is
    # requeued all the same: SLURM refuses a job that it has ended itself.
    out_of_time = status.get("asked") == StopReason.TIME_LIMIT or slurm.preempted(info)
    if info and not crashed and not out_of_time:
        return False, ""
    why = stuck_reason(run, attempts)
    return not why, why


def requeue_job(job: str, *, patience: float = 60.0) -> bool:
    """Put the job back into the queue, which ends this process; return False where SLURM refuses."""
    if slurm.ask("scontrol", "requeue", job, timeout=30) is None:
        return False
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(0.5)
    return True


def mark_failed(run: RunDir, why: str, **more: Any) -> None:
    """Mark the run as failed; it will not be requeued."""
    run.write_status(state="failed", message=why, **more)


REQUEUE_CODE = 10  # exit code of `end`: into the queue once more
