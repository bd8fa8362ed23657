"""Follow a run to its end: its log on this terminal, Ctrl-C as a clean stop, its exit code as ours."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hpc.rundir import RunDir, alive, mark

POLL = 0.2  # seconds


def living_ranks(run: RunDir) -> list[int]:
    """Process ids of the run's ranks that live on this host."""
    return [place[1] for place in run.ranks().values() if alive(*place) is True]


def ask_to_stop(run: RunDir, controller: int | None = None) -> int:
    """SIGTERM to the ranks of this host, or to the process that starts them; how many were asked."""
    asked = 0
    for pid in living_ranks(run) or ([controller] if controller else []):
        try:
            os.kill(pid, signal.SIGTERM)
            asked += 1
        except ProcessLookupError:
            continue
    return asked


@contextmanager
def tail(path: Path) -> Iterator["Tail"]:
    following = Tail(path)
    try:
        yield following
    finally:
        following.close()


class Tail:
    """What is added to a file from now on; the file may appear later."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, None
        self._from = path.stat().st_size if path.exists() else 0

    _file: IO[bytes] | None

    def copy(self) -> None:
        """Write what is new to stdout."""
        if self._file is None and self._path.exists():
            self._file = open(self._path, "rb")  # noqa: SIM115 - closed by `close`
            self._file.seek(self._from)
        new = self._file.read() if self._file else b""
        if new:
            sys.stdout.write(new.decode(errors="replace"))
            sys.stdout.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()


def follow(run: RunDir, controller: int, procs: int) -> int:
    """Copy rank 0's log until the job ends. Returns its exit code, 130 where Ctrl-C stopped it."""
    from launch.job import exit_code

    try:
        whole = mark(controller)
    except Exception:  # it ended before we looked
        whole = [*mark()[:1], 0, 0.0]
    interrupted = False
    with tail(run.log(0)) as log:
        while alive(*whole):
            try:
                log.copy()
                time.sleep(POLL)
                if interrupted and run.status()["state"] == "starting":
                    ask_to_stop(run, controller)  # ranks that load their libraries do not listen yet
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                print(f"\nstopping {run.name}: the ranks save and leave (Ctrl-C again leaves them to it)")
                ask_to_stop(run, controller)
        log.copy()
    code = exit_code(run, controller, procs)
    state = run.status()
    where = f"{state.get('clock', 0):,} of {state.get('images', 0):,} images"
    if code:
        print(f"error: {run.name} failed: {state.get('message') or f'see {run.logs}'}", file=sys.stderr)
        return code
    print(f"{run.name}: {state['state']} at {where}")
    return 130 if interrupted else 0
