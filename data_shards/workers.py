"""Worker processes for a list of large jobs: a ProcessPoolExecutor that never outlives its caller.

The executor by itself finishes running jobs when its caller leaves, and keeps its workers when the caller is
killed with -9. Here each worker also reads a pipe whose other end only the caller holds, and ends with it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any

from data_shards.errors import UserError


def run_jobs(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, workers: int
) -> Generator[tuple[int, Any], None, None]:
    """Yield (number of the job, function(*job)) of all jobs, in the order in which they end.

    workers=1 runs them in this process. What the function raises is raised here. UserError where a worker
    dies. Leaving the iterator early ends the workers.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for number, job in enumerate(jobs):
            yield number, function(*job)
        return
    # spawn: a fork would copy the threads' locks of whatever the caller has imported.
    context = multiprocessing.get_context("spawn")
    worker_end, caller_end = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _start, (worker_end,))
    try:
        numbers = {executor.submit(function, *job): number for number, job in enumerate(jobs)}
        for future in as_completed(numbers):
            number = numbers.pop(future)
            yield number, future.result()
    except BrokenProcessPool:
        raise UserError("a worker process ended by itself, probably out of memory; give workers=1") from None
    finally:
        caller_end.close()
        executor.shutdown(cancel_futures=True)
        worker_end.close()


def _start(worker_end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the caller, which ends its workers
    threading.Thread(target=_exit_with_caller, args=(worker_end,), daemon=True).start()


def _exit_with_caller(worker_end: Connection) -> None:
    try:
        worker_end.recv()
    except (EOFError, OSError):
        os._exit(1)
