"""`rostro logs`: what the ranks of a run wrote."""

import contextlib
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from data_shards.errors import UserError
from hpc.runs.run_dir import RunDir
from launch.options import key_value
from launch.watch.log_files import _text, last_lines

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
LOOK = 2.0  # seconds between two looks at whether the run goes on: of a job SLURM is asked


def main(argv: list[str]) -> int:
    spec = {"runs": "runs", "rank": "0", "lines": 40, "follow": False}
    keys = key_value.parse(argv, spec, positional=("run",), required=("run",))
    if keys.lines < 0:
        raise UserError(f"lines={keys.lines} is no number of lines: type lines=40, or lines=0 for all")
    run = RunDir.open(keys.run, runs=keys.runs)
    logs = chosen(run, keys.rank)
    if not keys.follow and not any(path.stat().st_size for path in logs.values()):
        print(f"{next(iter(logs.values()))} is empty: rank=all shows the others", file=sys.stderr)
    heads = {rank: f"rank {rank} | " if len(logs) > 1 else "" for rank in logs}
    with contextlib.ExitStack() as stack:
        files = {rank: stack.enter_context(path.open("rb")) for rank, path in logs.items()}
        for rank, file in files.items():
            for line in last_lines(file, keys.lines):
                print(f"{heads[rank]}{line}")
        if keys.follow:
            _follow(run, files, heads)
    return 0


def _follow(run: RunDir, files: Mapping[int, IO[bytes]], heads: Mapping[int, str]) -> None:
    """Print what is added, whole lines only, until the run has ended."""
    halves = dict.fromkeys(files, b"")
    looked, living = -LOOK, True
    while living:
        if time.monotonic() > looked + LOOK:
            living, looked = run.lock.in_use(), time.monotonic()  # before the last reading
        for rank, file in files.items():
            *lines, halves[rank] = (halves[rank] + file.read()).split(b"\n")
            for line in [*lines, *([halves[rank]] if halves[rank] and not living else [])]:
                print(f"{heads[rank]}{_text(line)}")
        sys.stdout.flush()
        if living:
            time.sleep(POLL)


def chosen(run: RunDir, rank: str) -> dict[int, Path]:
    """rank -> log of the ranks that the word names. UserError where there is none."""
    from hpc.runs.failures import guilty

    numbers = ((re.fullmatch(r"rank([0-9]{1,9})", path.stem), path) for path in run.logs.glob("rank*.log"))
    found = {int(number[1]): path for number, path in numbers if number and path.is_file()}
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
        if ended.rank not in found:
            raise UserError(
                f"rank {ended.rank} ended run {run.name} and left no log ({ended.message}): use rank=all"
            )
    if rank not in map(str, found):
        raise UserError(
            f"rank={rank} is not known: use guilty, all or one of {', '.join(map(str, sorted(found)))}"
        )
    return {int(rank): found[int(rank)]}
