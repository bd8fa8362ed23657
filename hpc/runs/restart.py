"""Recognises a run whose checkpoints are gone, and sets it aside for a new start. Imports no torch.

A run that has saved must not start from 0 by itself: its curves would be cut silently. Each save leaves its
clock in RUN/saved.json, which stays when checkpoints are lost. `rostro resume RUN from=0` sets all of it
aside.
"""

import os

from data_shards.errors import UserError
from data_shards.files import MissingFile, read_json, write_json
from hpc.runs import requeue
from hpc.runs.run_dir import RunDir

KEPT = (
    "events.out.tfevents.*",
    "metrics.jsonl",
    "threshold.json",
    "evaluations",
    "checkpoints",
    "saved.json",
)


def note_saved(run: RunDir, clock: int) -> None:
    """Record that a checkpoint of `clock` was saved (0 = none yet)."""
    write_json(run.saved_file, {"clock": clock})


def gone(run: RunDir) -> str:
    """Return why the run must not start (it has saved, and no checkpoint is left); empty where it may."""
    if requeue.newest_clock(run) >= 0:
        return ""
    last = _saved(run)
    damaged = len(list(run.checkpoints.glob(".damaged-*")))
    if not last and not damaged:
        return ""
    newest = f", the newest of clock {last:,}" if last else ""
    lost = f"; {damaged} damaged ones are in {run.checkpoints}/.damaged-*" if damaged else ""
    return (
        f"run {run.name} had checkpoints{newest}, and none is left{lost}: put one back, or type "
        f"`rostro resume {run.name} from=0` to start again, which keeps the curves in a folder beside it"
    )


def _saved(run: RunDir) -> int:
    """Return the clock of the newest save that the run has recorded (0 = none)."""
    try:
        return int(read_json(run.saved_file, {"clock": int})["clock"])
    except MissingFile:
        # Nothing is saved yet, or the run is of an earlier version: it has a checkpoint after twice the first
        # save.
        clock, every = int(run.status().get("clock") or 0), run.config().save.every
        return every if 0 < 2 * every <= clock else 0
    except UserError:
        return 1  # the file is damaged, so there was a save


def set_aside(run: RunDir) -> str:
    """Move what the run has made so far into a new folder in it, and return the folder's name."""
    number = 1 + max(
        (int(path.name[7:]) for path in run.path.glob("before-*") if path.name[7:].isdigit()), default=0
    )
    folder = run.path / f"before-{number}"
    try:
        folder.mkdir()
        for pattern in KEPT:
            for path in sorted(run.path.glob(pattern)):
                os.rename(path, folder / path.name)
        run.checkpoints.mkdir()
        note_saved(run, 0)
    except OSError as error:
        raise UserError(
            f"from=0: {folder} cannot be filled ({error.strerror}): give rights in {run.path}"
        ) from None
    run.write_status(clock=0, metrics={})
    return folder.name
