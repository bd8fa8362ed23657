"""`rostro logs`: what the ranks of a run wrote."""

import sys
import time
from collections import deque
from pathlib import Path

from data_shards.errors import UserError
from hpc.rundir import RunDir
from launch import args

HELP = """
usage: rostro logs RUN [key=value ...]

Prints the end of a rank's log.

  RUN            a name or a run directory
  runs=runs      folder of the run directories
  rank=0         a rank's number; guilty: the one that ended the run; all: every rank, each line with its rank
  lines=40       how many of the last lines; 0: all
  follow=false   go on printing what is added, until the run ends or Ctrl-C

Example: rostro logs siamese-20260101-120000 rank=guilty
"""
POLL = 0.3  # seconds


def main(argv: list[str]) -> int:
    spec = {"runs": "runs", "rank": "0", "lines": 40, "follow": False}
    keys = args.parse(argv, spec, positional=("run",), required=("run",))
    run = RunDir.open(keys.run, runs=keys.runs)
    logs = chosen(run, keys.rank)
    places = {}
    for rank, path in logs.items():
        head = f"rank {rank} | " if len(logs) > 1 else ""
        for line in last_lines(path, keys.lines):
            print(f"{head}{line}")
        places[rank] = path.stat().st_size
    while keys.follow:
        for rank, path in logs.items():
            with path.open("rb") as file:
                file.seek(places[rank])
                new = file.read()
            places[rank] += len(new)
            head = f"rank {rank} | " if len(logs) > 1 else ""
            for line in new.decode(errors="replace").splitlines():
                print(f"{head}{line}")
        sys.stdout.flush()
        if not run.in_use():
            break
        time.sleep(POLL)
    return 0


def chosen(run: RunDir, rank: str) -> dict[int, Path]:
    """rank -> log of the ranks that the word names. UserError where there is none."""
    from hpc.failure import guilty

    found = {int(path.stem[4:]): path for path in run.logs.glob("rank*.log") if path.stem[4:].isdigit()}
    if not found:
        raise UserError(
            f"run {run.name} has no logs yet: `rostro status {run.path}` shows whether it started"
        )
    if rank == "all":
        return dict(sorted(found.items()))
    if rank == "guilty":
        ended = guilty(run)
        if ended is None:
            raise UserError(f"rank=guilty: no rank of run {run.name} has failed: use rank=0 or rank=all")
        rank = str(ended.rank)
    if not rank.isdigit() or int(rank) not in found:
        raise UserError(
            f"rank={rank} is not known: use guilty, all or one of {', '.join(map(str, sorted(found)))}"
        )
    return {int(rank): found[int(rank)]}


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines (0: all)."""
    with path.open(errors="replace") as file:
        return [line.rstrip("\n") for line in (deque(file, maxlen=count) if count else file)]
