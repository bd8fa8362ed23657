"""Follow a run to its end: its log on this terminal, Ctrl-C as a clean stop, its exit code as ours."""

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
        if self._progress is not None:
            self._progress.console.print(text, end="", soft_wrap=True)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def advance(self) -> None:
        if self._progress is None:
            return
        status = statusfile.read_or_warn(self._run.status_file)
        clock, images, rate = (status.get(key) or 0 for key in ("clock", "images", "rate"))
        running = status.get("state") in ("running", "saving") and rate
        more = (
            f"{rate:,.0f} img/s  left {duration((images - clock) / rate)}" if running else status.get("state")
        )
        self._progress.update(self._bar, completed=clock, total=images or None, more=more)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


class Tail:
    """What is added to a file from now on; the file may appear later."""

    def __init__(self, path: Path, bar: Bar) -> None:
        self._path, self._bar = path, bar
        self._file: IO[bytes] | None = None
        self._from = path.stat().st_size if path.exists() else 0

    def copy(self) -> None:
        """Show what is new."""
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
    following = Tail(path, bar)
    try:
        yield following
    finally:
        following.close()


class Interrupts:
    """Ctrl-C as a flag, wherever it arrives; the second one is a KeyboardInterrupt."""

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

    def once(self, said: bool) -> bool:
        """Whether Ctrl-C came and nobody has acted on it yet (`said`); says what happens now."""
        if self.asked and not said:
            print(f"\nstopping {self._run.name}: the ranks save and leave (Ctrl-C again leaves them to it)")
        return self.asked and not said


def follow(run: RunDir, controller: int, procs: int) -> int:
    """Copy rank 0's log until the job ends. Returns its exit code, 130 where Ctrl-C stopped it."""

    try:
        whole = mark(controller)
    except Exception:  # it ended before we looked
        whole = [*mark()[:1], 0, 0.0]
    stopping = False
    with Interrupts(run) as interrupts, tail(run.log(0), bar=Bar(run)) as log:
        while alive(*whole):
            log.copy()
            time.sleep(POLL)
            starting = stopping and run.status()["state"] == "starting"
            if interrupts.once(stopping) or starting:  # ranks that load their libraries do not listen yet
                stopping = True
                ask_to_stop(run, controller)
        log.copy()
    return _end(run, exit_code(run, controller, procs), stopping)


def follow_job(run: RunDir, job: str) -> int:
    """As `follow`, for a job of SLURM, from start to start, until it is in the queue no more."""
    stopping, said = False, ""
    with Interrupts(run) as interrupts, tail(run.log(0), bar=Bar(run)) as log:
        while True:
            state = slurm.job_state(job)
            if state not in slurm.LIVE and (state or slurm.answers()):
                break
            if state != said:
                said = str(state)
                print(f"job {job}: {said if state else 'SLURM does not answer'}", flush=True)
            for _ in range(10):  # the log is near, the controller is everybody's
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
    """The worst exit code of the ranks of an ended job; a rank that left no answer was killed: 1."""
    import pickle

    codes = []
    for rank in range(procs):
        answer = run.submitit / f"{job}_{rank}_result.pkl"
        kind, value = pickle.loads(answer.read_bytes()) if answer.exists() else ("killed", 1)
        codes.append(int(value) if kind == "success" else 1)
    return max(codes)
