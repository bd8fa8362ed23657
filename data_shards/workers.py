"""A few processes that work off a list of large jobs. Results come back as they are ready.

Smaller than multiprocessing.Pool, for two reasons: a worker that dies is noticed and named, and workers end
with their parent even when it is killed with -9 (they hold no other end of their pipe, so they read its end).
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from data_shards.errors import UserError


def run_jobs(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Any]]:
    """(number of the job, function(*job)) of all jobs, in the order in which they end.

    workers=1 runs them in this process. A UserError or OSError of the function is raised here as it is, any
    other exception as RuntimeError with the worker's traceback. Leaving the iterator early ends the workers.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for number, job in enumerate(jobs):
            yield number, function(*job)
        return
    # spawn: a fork would copy the threads' locks of whatever the caller has imported.
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], {}
    waiting = iter(enumerate(jobs))
    running: dict[Connection, int] = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, function), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes[ours] = process
            _send(ours, waiting, running)
        while running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                number = running.pop(pipe)
                try:
                    kind, value = pipe.recv()
                except (EOFError, ConnectionResetError):
                    pipes[pipe].join()
                    raise UserError(
                        f"a worker process ended by itself (exit code {pipes[pipe].exitcode}), probably out "
                        "of memory; give workers=1"
                    ) from None
                if kind == "error":
                    raise value
                _send(pipe, waiting, running)
                yield number, value
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _send(pipe: Connection, waiting: Iterator[tuple[int, Any]], running: dict[Connection, int]) -> None:
    for number, job in waiting:
        running[pipe] = number
        pipe.send(job)
        return


def _work(pipe: Connection, function: Callable[..., Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its workers
    parent = os.getppid()
    try:
        while True:
            job = pipe.recv()
            if os.getppid() != parent:  # it died after sending the job
                os._exit(1)
            answer: tuple[str, Any]
            try:
                answer = ("result", function(*job))
            except (UserError, OSError) as error:
                answer = ("error", error)
            except Exception:
                answer = ("error", RuntimeError(f"in worker {os.getpid()}:\n{traceback.format_exc()}"))
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        os._exit(1)
