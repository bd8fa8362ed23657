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
import simplejpeg
import torch

from data_shards.errors import DecodeError, UserError
from data_shards.images.pixels import square
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
    side, (width, height), (x, y, wide, high) = len(out), size, crop
    factor = 1
    while factor < 8 and min(wide, high) >= 2 * factor * side:
        factor *= 2
    scaled = (-(-width // factor), -(-height // factor))
    plain = not flip and colour is None
    if factor == 1 and plain and crop == (0, 0, side, side) == (0, 0, *size):
        shape = simplejpeg.decode_jpeg_header(blob)[:2]
        if shape == (side, side):  # decode in place; another size would not fit into `out`
            simplejpeg.decode_jpeg(blob, "RGB", fastdct=False, fastupsample=False, buffer=out)
            return
    image = simplejpeg.decode_jpeg(
        blob,
        "RGB",
        fastdct=False,
        fastupsample=False,
        min_width=scaled[0] if factor > 1 else 0,
        min_height=scaled[1] if factor > 1 else 0,
        min_factor=factor,
    )
    if image.shape[1::-1] != scaled:
        raise ValueError(f"it is not {width}x{height} pixels as the index says")
    dst = out if plain else None
    if factor > 1:
        image = _cut_scaled(image, tuple(value / factor for value in crop), side, dst)
    else:
        image = image[y : y + high, x : x + wide]
        if image.shape[:2] != (side, side):
            image = _resize(image, side, dst)
    if colour is not None:
        image = cv2.transform(image, colour)
    if flip:
        cv2.flip(image, 1, dst=out)
    elif image is not out:
        out[...] = image


def decode_square(out: np.ndarray, blob: bytes, size: tuple[int, int]) -> None:
    """Decode `blob`, of `size` (width, height), whole; its centre square goes to `out` [side, side, 3] RGB.

    out: uint8. Raises ValueError as `decode_image` does.
    """
    if size == out.shape[1::-1]:
        return decode_image(out, blob, size, (0, 0, *size), False, None)
    image = simplejpeg.decode_jpeg(blob, "RGB", fastdct=False, fastupsample=False)
    if image.shape[1::-1] != size:
        raise ValueError(f"it is not {size[0]}x{size[1]} pixels as the index says")
    out[...] = square(image, len(out))
    return None


def _resize(image: np.ndarray, side: int, dst: np.ndarray | None) -> np.ndarray:
    """Average areas where both sides shrink, else bilinear: area mode takes nearest pixels on a growing side.

    An image up to 3 times too large goes by way of exactly 2 times: its 2 x 2 means are as close to an
    antialiased filter as OpenCV's area mode at a broken ratio, in a third to two thirds of the time.
    """
    if min(image.shape[:2]) < side:
        return cv2.resize(image, (side, side), dst=dst, interpolation=cv2.INTER_LINEAR)
    if max(image.shape[:2]) <= 3 * side:
        image = cv2.resize(image, (2 * side, 2 * side), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (side, side), dst=dst, interpolation=cv2.INTER_AREA)


def _cut_scaled(image: np.ndarray, crop: tuple[float, ...], side: int, dst: np.ndarray | None) -> np.ndarray:
    """Cut a crop with fractional edges: whole pixels of an image at 1/8 scale would shift it visibly."""
    x, y, wide, high = crop
    if max(wide, high) >= 2 * side:  # bilinear samples would alias, and whole pixels are small enough
        left, top, right, bottom = (round(edge) for edge in (x, y, x + wide, y + high))
        cut = image[top : max(bottom, top + 1), left : max(right, left + 1)]
        return _resize(cut, side, dst)
    across, down = wide / side, high / side
    to_source = np.array([[across, 0, x + across / 2 - 0.5], [0, down, y + down / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, to_source, (side, side), dst, flags, cv2.BORDER_REPLICATE)


def decode_rows(source: Source, job: DecodeRequest, out: np.ndarray, rows: slice) -> None:
    """Read and decode some of a job's images to `out` [N, side, side, 3]. DecodeError names a bad one."""
    steps = job.augmentation
    blobs = source.read(job, rows)
    sizes, crops, flips = job.sizes[rows].tolist(), steps.crop[rows].tolist(), steps.flip[rows].tolist()
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
