"""The host backend: threads decode with simplejpeg (libjpeg-turbo) and OpenCV, batches ahead of the step.

Both libraries release the interpreter lock, so threads scale and nothing is copied between processes. An
image is decoded at the DCT scale (1/2, 1/4, 1/8) that its crop needs. Pixels depend on the job alone: not
on the number of threads, nor on how far ahead they run. The other backend: `dali.py`.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from data_shards.errors import DecodeError, UserError
from data_shards.images.placed import Window, decode_windows
from data_shards.loading.requests import DecodeRequest

PATIENCE = 10.0  # seconds that `close` waits for the feeder

# The k-th batch from the start (None = past the end), a pure function.
DecodeRequests = Callable[[int], DecodeRequest | None]


class Source(Protocol):
    """Where the bytes of a job come from: `requests.RequestBuilder`, or a stream."""

    def read(self, job: DecodeRequest, rows: slice = ...) -> list[bytes]: ...
    def hint(self, job: DecodeRequest) -> None: ...
    def broken(self, job: DecodeRequest, row: int, reason: str) -> DecodeError: ...


def decode_image(
    out: np.ndarray,
    blob: bytes,
    size: tuple[int, int],
    crop: tuple[int, int, int, int],
    flip: bool,
    colour: np.ndarray | None,
) -> None:
    """Decode `blob`, of `size` (width, height), to `out` [side, side, 3] RGB: crop, resize, recolour, flip.

    out: uint8. crop: x, y, width, height in pixels of the stored image. colour: [3, 4] float32 map of RGB in
    0..255 (None = keep the colours). Raises ValueError where the bytes are not a sound JPEG of that size.
    """
    side = len(out)
    window = Window(crop, (side, side), (0, 0), flip, (side, side))
    decode_windows([out], blob, size, [window], colour=colour)


def decode_square(out: np.ndarray, blob: bytes, size: tuple[int, int]) -> None:
    """Decode `blob`, of `size` (width, height), whole; its centre square goes to `out` [side, side, 3] RGB.

    out: uint8. Raises ValueError as `decode_image` does.
    """
    width, height = size
    side, shorter = len(out), min(size)
    crop = ((width - shorter) // 2, (height - shorter) // 2, shorter, shorter)
    decode_windows([out], blob, size, [Window(crop, (side, side), (0, 0), False, (side, side))], exact=True)


def decode_rows(source: Source, job: DecodeRequest, out: np.ndarray, rows: slice) -> None:
    """Read and decode some of a job's images to `out` [N, side, side, 3]. DecodeError names a bad one."""
    steps = job.augmentation
    blobs = source.read(job, rows)
    sizes, crops, flips = (part[rows].tolist() for part in (*job.stored, steps.flip))
    for at, (blob, size, crop, flip) in enumerate(zip(blobs, sizes, crops, flips, strict=True)):
        row = rows.start + at
        colour = None if steps.colour is None else steps.colour[row]
        try:
            if steps.exact:
                decode_square(out[row], blob, tuple(size))
            else:
                decode_image(out[row], blob, tuple(size), tuple(crop), flip, colour)
        except (ValueError, cv2.error) as error:
            raise source.broken(job, row, str(error).split("\n")[0]) from error


class HostBackend:
    """Decodes the batches of `jobs` in order, up to `ahead` of them before they are asked for.

    size: side of the decoded squares in pixels; pin: put batches into page-locked memory, from which they are
    copied to a GPU. Raises UserError for threads or ahead below 1.
    """

    def __init__(self, source: Source, *, size: int, threads: int, ahead: int, pin: bool = False) -> None:
        if threads < 1 or ahead < 1:
            key, value = ("threads", threads) if threads < 1 else ("ahead", ahead)
            raise UserError(f"data.{key}={value} is not positive: use data.{key}=2")
        self._source, self._size, self._threads, self._ahead, self._pin = source, size, threads, ahead, pin
        self._queue: queue.Queue[Any] = queue.Queue()
        self._stop = threading.Event()
        self._feeder: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._error: BaseException | None = None
        cv2.setNumThreads(1)  # the pool is the parallelism

    def start(self, jobs: DecodeRequests) -> None:
        """Begin to decode `jobs`; what an earlier start has decoded ahead is discarded."""
        self.close()
        self._queue, self._stop, self._error = queue.Queue(self._ahead), threading.Event(), None
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        arguments = (jobs, self._queue, self._stop, self._pool)
        self._feeder = threading.Thread(target=self._feed, args=arguments, name="batches", daemon=True)
        self._feeder.start()

    def next(self) -> tuple[DecodeRequest, torch.Tensor]:
        """The next job and its images, uint8 [N, side, side, 3]. StopIteration past the end.

        Raises DecodeError, which names an image that does not decode, now and at every later call.
        """
        if self._feeder is None:
            raise RuntimeError("next() before start()")
        if self._error is None:
            item = self._queue.get()
            try:
                if isinstance(item, BaseException):
                    raise item
                job, images, futures = item
                for future in futures:
                    future.result()
                return job, images
            except BaseException as error:
                self._error = error
                self._stop.set()
        raise self._error

    def close(self) -> None:
        """Stop all threads; what was decoded ahead is discarded.

        A feeder that waits for a stalled pipe or server is left behind: it ends when the pipe or server does.
        """
        self._stop.set()
        if self._feeder is not None:
            self._feeder.join(PATIENCE)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._feeder = self._pool = None

    def _feed(
        self, jobs: DecodeRequests, out: queue.Queue, stop: threading.Event, pool: ThreadPoolExecutor
    ) -> None:
        """The feeder thread: compute jobs, hint them to storage early, hand them to the pool."""
        try:
            for job in self._hinted(jobs):
                if stop.is_set() or not self._put(out, self._submit(job, pool), stop):
                    return
            self._put(out, StopIteration(), stop)
        except BaseException as error:  # raised again by next()
            self._put(out, error, stop)

    def _hinted(self, jobs: DecodeRequests) -> Iterator[DecodeRequest]:
        coming: deque[DecodeRequest] = deque()
        number = 0
        while True:
            job = jobs(number)
            if job is None:
                break
            self._source.hint(job)
            coming.append(job)
            number += 1
            if len(coming) > self._ahead:
                yield coming.popleft()
        yield from coming

    def _submit(
        self, job: DecodeRequest, pool: ThreadPoolExecutor
    ) -> tuple[DecodeRequest, torch.Tensor, list[Future]]:
        images = torch.empty((len(job), self._size, self._size, 3), dtype=torch.uint8, pin_memory=self._pin)
        out = images.numpy()
        step = max(1, min(16, -(-len(job) // self._threads)))  # small parts: no thread waits long at the end
        parts = [slice(low, min(low + step, len(job))) for low in range(0, len(job), step)]
        return job, images, [pool.submit(decode_rows, self._source, job, out, rows) for rows in parts]

    @staticmethod
    def _put(out: queue.Queue, item: Any, stop: threading.Event) -> bool:
        while not stop.is_set():
            try:
                out.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
