"""Follow a run to its end: show its log, make Ctrl-C a clean stop, return its exit code."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from hpc.cluster import slurm
from hpc.runs import status as statusfile
from hpc.runs.processes import alive, mark
from hpc.runs.run_dir import RunDir
from launch.terminal import duration
from launch.watch.stopping import ask_job_to_stop, ask_to_stop

POLL = 0.2  # seconds


class Bar:
    """A progress bar below the log where stdout is a terminal; plain text elsewhere."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._progress = run, None
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}"))
            self._progress = Progress(
                *columns, console=Console(highlight=False, markup=False), transient=True
            )
            self._bar = self._progress.add_task("", total=None, more="starting")
            self._progress.start()

    def write(self, text: str) -> None:
        """Print text above the bar."""
        if self._progress is not None:
            self._progress.console.print(text, end="", soft_wrap=True)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def advance(self) -> None:
        """Show the run's progress by its status file."""
        if self._progress is None:
            return
        status = statusfile.read_or_warn(self._run.status_file)
        clock, images, rate = (status.get(key) or 0 for key in ("clock", "images", "rate"))
        running = status.get("state") == "running" and rate
        more = (
            f"{rate:,.0f} img/s  left {duration((images - clock) / rate)}" if running else status.get("state")
        )
        self._progress.update(self._bar, completed=clock, total=images or None, more=more)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


class Tail:
    """The text added to a file from now on; the file may appear later."""

    def __init__(self, path: Path, bar: Bar) -> None:
        self._path, self._bar = path, bar
        self._file: IO[bytes] | None = None
        self._from = path.stat().st_size if path.exists() else 0

    def copy(self) -> None:
        """Print what is new."""
        if self._file is None and self._path.exists():
            self._file = open(self._path, "rb")  # noqa: SIM115 - closed by `close`
            self._file.seek(self._from)
        new = self._file.read() if self._file else b""
        if new:
            self._bar.write(new.decode(errors="replace"))
        self._bar.advance()

    def close(self) -> None:
        self._bar.close()
        if self._file:
            self._file.close()


@contextmanager
def tail(path: Path, bar: Bar) -> Iterator[Tail]:
    """Open a Tail and close it at the end."""
    following = Tail(path, bar)
    try:
        yield following
    finally:
        following.close()


class Interrupts:
    """Turn Ctrl-C into a flag, wherever it arrives; the second one is a KeyboardInterrupt."""

    def __init__(self, run: RunDir) -> None:
        self.asked, self._run = False, run

    def __enter__(self) -> "Interrupts":
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def once(self, handled: bool) -> bool:
        """Return whether Ctrl-C came and was not yet handled; then print what happens now."""
        if self.asked and not handled:
            print(f"\nstopping {self._run.name}: the ranks save and leave (Ctrl-C again leaves them to it)")
        return self.asked and not handled


def follow(run: RunDir, controller: int, procs: int) -> int:
    """Copy rank 0's log until the job ends; return its exit code, 130 if Ctrl-C stopped it."""
    try:
        process = mark(controller)
    except Exception:  # it has ended already
        process = [*mark()[:1], 0, 0.0]
    stopping = False
    with Interrupts(run) as interrupts, tail(run.log(0), bar=Bar(run)) as log:
        while alive(*process):
            log.copy()
            time.sleep(POLL)
            starting = stopping and run.status()["state"] == "starting"
            if interrupts.once(stopping) or starting:  # ranks that load their libraries ignore the signal
                stopping = True
                ask_to_stop(run, controller)
        log.copy()
    return _end(run, exit_code(run, controller, procs), stopping)


def follow_job(run: RunDir, job: str) -> int:
    """Follow a SLURM job over all its starts, until it has left the queue; else like `follow`."""
    stopping, shown = False, ""
    with Interrupts(run) as interrupts, tail(run.log(0), bar=Bar(run)) as log:
        while True:
            state = slurm.job_state(job)
            if state not in slurm.LIVE and (state or slurm.answers()):
                break
            if state != shown:
                shown = str(state)
                print(f"job {job}: {shown if state else 'SLURM does not answer'}", flush=True)
            for _ in range(10):  # read the log often, ask the controller seldom
                log.copy()
                time.sleep(POLL)
                if interrupts.once(stopping):
                    stopping = True
                    ask_job_to_stop(run, job)
        log.copy()
    return _end(run, int(run.status()["state"] not in ("finished", "stopped")), stopping)


def _end(run: RunDir, code: int, interrupted: bool) -> int:
    state = run.status()
    where = f"{state.get('clock', 0):,} of {state.get('images', 0):,} images"
    if code:
        print(f"error: {run.name} failed: {state.get('message') or f'see {run.logs}'}", file=sys.stderr)
        return code
    print(f"{run.name}: {state['state']} at {where}")
    return 130 if interrupted else 0


def exit_code(run: RunDir, job: int, procs: int) -> int:
    """Return the worst exit code of the ranks of an ended job; a rank without a result was killed: 1."""
    import pickle

    codes = []
    for rank in range(procs):
        answer = run.submitit / f"{job}_{rank}_result.pkl"
        kind, value = pickle.loads(answer.read_bytes()) if answer.exists() else ("killed", 1)
        codes.append(int(value) if kind == "success" else 1)
    return max(codes)
