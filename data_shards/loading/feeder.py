"""The feeder: a thread that computes requests in order, and a pool that works on them ahead of the step.

Both backends use it: the host's pool reads and decodes, DALI's reads and compares crc32. The order of what
comes out is that of the requests, whatever the number of threads is.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from data_shards.errors import UserError
from data_shards.loading.decode_request import DecodeRequest

PATIENCE = 10.0  # seconds that `close` waits for the thread

# The k-th batch from the start (None = past the end), a pure function.
DecodeRequests = Callable[[int], DecodeRequest | None]
Payload = TypeVar("Payload")
Submit = Callable[[DecodeRequest, ThreadPoolExecutor], tuple[Payload, list[Future]]]


def check_threads(threads: int, ahead: int) -> None:
    """Raise UserError for threads or ahead below 1."""
    if threads < 1 or ahead < 1:
        key, value = ("threads", threads) if threads < 1 else ("ahead", ahead)
        raise UserError(f"data.{key}={value} is not positive: use data.{key}=2")


class Feeder(Generic[Payload]):
    """Requests in order with what `submit` has made the pool do for them, up to `ahead` of them in advance.

    submit: hands the work for a request to the pool: (what it fills, the futures to wait for). hint: called
    with each request `hinted` requests before its work begins.
    """

    def __init__(
        self,
        jobs: DecodeRequests,
        submit: Submit[Payload],
        hint: Callable[[DecodeRequest], None],
        *,
        threads: int,
        ahead: int,
        hinted: int,
    ) -> None:
        self._jobs, self._submit, self._hint, self._hinted = jobs, submit, hint, hinted
        self._queue: queue.Queue[Any] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._thread = threading.Thread(target=self._feed, name="batches", daemon=True)
        self._thread.start()

    def next(self) -> tuple[DecodeRequest, Payload]:
        """The next request, when its work is done. StopIteration past the end.

        What the work raises is raised now and at every later call.
        """
        if self._error is None:
            item = self._queue.get()
            try:
                if isinstance(item, BaseException):
                    raise item
                job, payload, futures = item
                for future in futures:
                    future.result()
                return job, payload
            except BaseException as error:
                self._error = error
                self._stop.set()
        raise self._error

    def close(self) -> None:
        """Stop all threads; what was done ahead is discarded.

        A thread that waits for a stalled pipe or server is left behind: it ends when the pipe or server does.
        """
        self._stop.set()
        self._thread.join(PATIENCE)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _feed(self) -> None:
        try:
            for job in self._in_order():
                if self._stop.is_set() or not self._put((job, *self._submit(job, self._pool))):
                    return
            self._put(StopIteration())
        except BaseException as error:  # raised again by next()
            self._put(error)

    def _in_order(self) -> Iterator[DecodeRequest]:
        """The requests, each after those that follow it have been hinted."""
        coming: deque[DecodeRequest] = deque()
        number = 0
        while (job := self._jobs(number)) is not None:
            self._hint(job)
            coming.append(job)
            number += 1
            if len(coming) > self._hinted:
                yield coming.popleft()
        yield from coming

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
