"""The host backend: threads decode with simplejpeg (libjpeg-turbo) and OpenCV, batches ahead of the step.

Both libraries release the interpreter lock, so threads scale and nothing is copied between processes. An
image is decoded at the DCT scale (1/2, 1/4, 1/8) that its crop needs. Pixels depend on the job alone: not
on the number of threads, nor on how far ahead they run. The other backend: `dali.py`.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from data_shards.batch import IMAGE
from data_shards.errors import DecodeError
from data_shards.images.placed import PADDING, UNKNOWN, Window, decode_mask, decode_windows
from data_shards.loading.decode_request import DecodeRequest
from data_shards.loading.feeder import DecodeRequests, Feeder, check_threads
from data_shards.sampling.placed import Placed

Buffers = dict[str, np.ndarray]  # name -> uint8 [windows / parts, parts, h, w, channels]


class Source(Protocol):
    """Where the bytes of a job come from: `requests.RequestBuilder`, or a stream."""

    def read(self, job: DecodeRequest, rows: slice = ..., piece: str = ...) -> list[bytes]: ...
    def hint(self, job: DecodeRequest) -> None: ...
    def broken(self, job: DecodeRequest, row: int, reason: str, piece: str = ...) -> DecodeError: ...


def decode_square(out: np.ndarray, blob: bytes, size: tuple[int, int]) -> None:
    """Decode `blob`, of `size` (width, height), whole; its centre square goes to `out` [side, side, 3] RGB.

    out: uint8. Raises ValueError where the bytes are not a sound JPEG of that size.
    """
    width, height = size
    side, shorter = len(out), min(size)
    crop = ((width - shorter) // 2, (height - shorter) // 2, shorter, shorter)
    decode_windows([out], blob, size, [Window(crop, (side, side), (0, 0), False, (side, side))], exact=True)


def new_images(job: DecodeRequest, *, pin: bool = False) -> dict[str, Tensor]:
    """Memory for the images and pieces of a job: uint8 [parts, windows / parts, h, w, channels].

    pin: page-locked, from which they are copied to a GPU.
    """
    parts, (height, width) = 1 + job.pairs, job.plan.placed.target
    channels = {IMAGE: 3} | {name: 1 if piece.kind == "mask" else 3 for name, piece in job.pieces.items()}
    return {
        name: torch.empty(
            (parts, len(job.plan) // parts, height, width, depth), dtype=torch.uint8, pin_memory=pin
        )
        for name, depth in channels.items()
    }


def buffers(images: dict[str, Tensor]) -> Buffers:
    """The same memory as decoders fill it: the windows in the order of the job."""
    return {name: image.numpy().swapaxes(0, 1) for name, image in images.items()}


def decode_rows(source: Source, job: DecodeRequest, out: Buffers, rows: slice) -> None:
    """Read and decode some of a job's stored images, with their pieces. DecodeError names a bad one."""
    each = job.windows
    windows = slice(rows.start * each, rows.stop * each)
    _decode_images(source, job, out[IMAGE], rows, job.stored[windows])
    placed = job.plan.placed[windows] if job.pieces else None
    for name, piece in job.pieces.items():
        assert placed is not None
        blobs = source.read(job, rows, name)
        if piece.kind == "mask":
            _decode_masks(source, job, out[name], rows, placed.windows(), blobs, name)
        else:
            sizes = np.repeat(np.maximum(piece.sizes[rows], 1), each, axis=0)
            _decode_images(source, job, out[name], rows, placed.scaled(sizes), name, blobs)


def _targets(out: np.ndarray, row: int, each: int) -> list[np.ndarray]:
    """Where the windows of stored image `row` go."""
    if each == out.shape[1] == 1:
        return [out[row, 0]]
    return [out[divmod(window, out.shape[1])] for window in range(row * each, (row + 1) * each)]


def _decode_images(
    source: Source,
    job: DecodeRequest,
    out: np.ndarray,
    rows: slice,
    placed: Placed,
    name: str = "",
    blobs: list[bytes] | None = None,
) -> None:
    blobs = source.read(job, rows) if blobs is None else blobs
    each, plan = job.windows, job.plan
    windows = placed.windows()
    sizes = (job.pieces[name].sizes[rows] if name else placed.source[::each]).tolist()
    for at, (blob, size) in enumerate(zip(blobs, sizes, strict=True)):
        row = rows.start + at
        targets = _targets(out, row, each)
        if name and not size[0]:
            for target in targets:
                target[...] = PADDING
            continue
        colour = None if plan.colour is None else plan.colour[row * each]
        own = windows[at * each : (at + 1) * each]
        try:
            decode_windows(targets, blob, tuple(size), own, colour=colour, exact=plan.exact)
        except (ValueError, cv2.error) as error:
            raise source.broken(job, row, str(error).split("\n")[0], name) from error


def _decode_masks(
    source: Source,
    job: DecodeRequest,
    out: np.ndarray,
    rows: slice,
    windows: list[Window],
    blobs: list[bytes],
    name: str,
) -> None:
    each, piece = job.windows, job.pieces[name]
    sizes = zip(piece.sizes[rows].tolist(), job.sizes[rows].tolist(), strict=True)
    for at, (blob, (stored, size)) in enumerate(zip(blobs, sizes, strict=True)):
        row = rows.start + at
        for target, window in zip(_targets(out, row, each), windows[at * each :], strict=False):
            if not stored[0]:
                target[...] = UNKNOWN
                continue
            try:
                decode_mask(target[..., 0], blob, tuple(stored), tuple(size), window)
            except (ValueError, cv2.error) as error:
                raise source.broken(job, row, str(error).split("\n")[0], name) from error


class HostBackend:
    """Decodes the batches of `jobs` in order, up to `ahead` of them before they are asked for.

    pin: put batches into page-locked memory, from which they are copied to a GPU. Raises UserError for
    threads or ahead below 1.
    """

    def __init__(self, source: Source, *, threads: int, ahead: int, pin: bool = False) -> None:
        check_threads(threads, ahead)
        self._source, self._threads, self._ahead, self._pin = source, threads, ahead, pin
        self._feeder: Feeder[dict[str, Tensor]] | None = None
        cv2.setNumThreads(1)  # the pool is the parallelism

    def start(self, jobs: DecodeRequests) -> None:
        """Begin to decode `jobs`; what an earlier start has decoded ahead is discarded."""
        self.close()
        self._feeder = Feeder(
            jobs,
            self._submit,
            self._source.hint,
            threads=self._threads,
            ahead=self._ahead,
            hinted=self._ahead,
        )

    def next(self) -> tuple[DecodeRequest, dict[str, Tensor]]:
        """The next job, its images and pieces as `new_images` has them. StopIteration past the end.

        Raises DecodeError, which names an image that does not decode, now and at every later call.
        """
        if self._feeder is None:
            raise RuntimeError("next() before start()")
        return self._feeder.next()

    def close(self) -> None:
        """Stop all threads; what was decoded ahead is discarded."""
        if self._feeder is not None:
            self._feeder.close()
        self._feeder = None

    def _submit(self, job: DecodeRequest, pool: ThreadPoolExecutor) -> tuple[dict[str, Tensor], list[Future]]:
        images = new_images(job, pin=self._pin)
        out = buffers(images)
        return images, [
            pool.submit(decode_rows, self._source, job, out, rows) for rows in cut(job, self._threads)
        ]


def cut(job: DecodeRequest, threads: int) -> list[slice]:
    """Small parts of a job: no thread waits long at the end."""
    step = max(1, min(16, -(-len(job) // threads)))
    return [slice(low, min(low + step, len(job))) for low in range(0, len(job), step)]
