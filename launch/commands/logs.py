"""`rostro logs`: print what the ranks of a run wrote."""

import contextlib
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from data_shards.errors import UserError
from hpc.runs.run_dir import RunDir
from launch.options.key_value import parse
from launch.options.option import Option, option_lines
from launch.watch.log_files import last_lines, text_of

OPTIONS = {
    "runs": Option("runs", "folder of the run directories"),
    "rank": Option(
        "0",
        "a rank's number; failed: the rank that ended the run; all: every rank, each line with its rank",
    ),
    "lines": Option(40, "how many of the last lines (0 = all)", least=0),
    "follow": Option(False, "print what is added too, until the run ends or Ctrl-C"),
}
HELP = f"""
usage: rostro logs RUN [key=value ...]

Prints the end of a rank's log.

{option_lines(OPTIONS, {"RUN": "a name or a run directory"})}

Example: rostro logs siamese-20260101-120000 rank=failed
"""
FAILED = ("failed", "guilty")  # the second is the word of earlier versions
POLL = 0.3  # seconds
LOOK = 2.0  # seconds between two looks at whether the run still runs: for a job SLURM is asked


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run",))
    run = RunDir.open(keys.run, runs=keys.runs)
    logs = logs_of(run, keys.rank)
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
            living, looked = run.ownership.in_use(), time.monotonic()  # before the last reading
        for rank, file in files.items():
            *lines, halves[rank] = (halves[rank] + file.read()).split(b"\n")
            for line in [*lines, *([halves[rank]] if halves[rank] and not living else [])]:
                print(f"{heads[rank]}{text_of(line)}")
        sys.stdout.flush()
        if living:
            time.sleep(POLL)


def logs_of(run: RunDir, rank: str) -> dict[int, Path]:
    """Return rank -> log of the ranks that the word names. UserError if there is none."""
    from hpc.runs.failures import root_cause

    numbers = ((re.fullmatch(r"rank([0-9]{1,9})", path.stem), path) for path in run.logs.glob("rank*.log"))
    logs = {int(number[1]): path for number, path in numbers if number and path.is_file()}
    if not logs:
        raise UserError(
            f"run {run.name} has no logs yet: `rostro status {run.path}` shows whether it started"
        )
    if rank == "all":
        return dict(sorted(logs.items()))
    if rank in FAILED:
        ended = root_cause(run)
        if ended is None:
            raise UserError(f"rank=failed: no rank of run {run.name} has failed: use rank=0 or rank=all")
        rank = str(ended.rank)
        if ended.rank not in logs:
            raise UserError(
                f"rank {ended.rank} ended run {run.name} and left no log ({ended.message}): use rank=all"
            )
    if rank not in map(str, logs):
        raise UserError(
            f"rank={rank} is not known: use failed, all or one of {', '.join(map(str, sorted(logs)))}"
        )
    return {int(rank): logs[int(rank)]}
