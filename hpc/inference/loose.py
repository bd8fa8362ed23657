"""Loose image files as blocks of squares for a network: found, read and decoded by threads, ahead of it.

An ordinary JPEG is decoded by libjpeg-turbo; every other format, and what needs turning upright, goes through
`data_shards/images/normalize.py`. Both give the pixels that evaluation sees, with one exception: unless
`exact`, a JPEG of four times the network's size or more is decoded at 1/2, 1/4 or 1/8 of its size by the DCT,
which averages as the resize does, in a third of the time.
"""

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from data_shards.errors import UserError
from data_shards.files import read_bytes
from data_shards.images.jpeg import read_head
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected, square

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
LARGEST = 1 << 29  # bytes of a file: more than any format needs for what `normalize.py` allows
MOST = 1 << 25  # pixels of a JPEG that is decoded without further checks
AHEAD = 3  # blocks that are decoded while the network looks at one
PART = 8  # files that one thread takes at a time


@dataclass(frozen=True)
class LooseBlock:
    """Consecutive files: the readable ones with their squares, and why the others are not."""

    files: list[str]  # [n] relative to the folder
    images: np.ndarray  # uint8 [n, size, size, 3] RGB
    rejected: list[tuple[str, str]]  # file, reason


def find_images(place: Path) -> tuple[Path, list[str]]:
    """Return a folder and the image files below it, sorted; of a file its folder and its name.

    Raises UserError where there are none. Links to folders are not followed.
    """
    if place.is_file():
        return place.parent, [place.name]
    if not place.is_dir():
        raise UserError(f"in={place} does not exist: give an image, a folder of images or a packed set")
    files = [
        os.path.relpath(os.path.join(folder, name), place)
        for folder, _, names in os.walk(place)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    if not files:
        raise UserError(f"in={place} holds no image: give a folder with {', '.join(SUFFIXES)} files")
    return place, sorted(files)


def decode_file(path: Path | str, out: np.ndarray, *, exact: bool = False) -> None:
    """Decode the centre square of a file to `out` uint8 [size, size, 3] RGB. Raises Rejected."""
    try:
        data = read_bytes(path, limit=LARGEST)
    except UserError as error:
        raise Rejected(str(error).split(": ", 1)[0]) from None
    if not _decode_plain(data, out, exact):
        image = pixels(data)
        out[...] = square(image if image.shape[2] == 3 else image.repeat(3, axis=2), len(out))


def _decode_plain(data: bytes, out: np.ndarray, exact: bool) -> bool:
    """Decode an upright JPEG in grey or YCbCr; False where it is not that, or not whole."""
    if data[:2] != b"\xff\xd8":
        return False
    try:
        head = read_head(data)
        plain = head.orientation == 1 and head.components in (1, 3) and head.common and head.adobe != 0
        if not plain or head.width * head.height > MOST or data.count(b"\xff\xda") > 64:
            return False
        factor = 1 if exact else _factor(min(head.width, head.height), len(out))
        image = simplejpeg.decode_jpeg(
            data,
            "RGB",
            fastdct=False,
            fastupsample=False,
            min_width=head.width // factor if factor > 1 else 0,
            min_height=head.height // factor if factor > 1 else 0,
            min_factor=factor,
        )
    except ValueError:
        return False  # the slow way says why, or reads it after all
    _square_to(out, image)
    return True


def _factor(side: int, size: int) -> int:
    """Return by how much a JPEG may be reduced so that its shorter side stays at least twice `size`."""
    return next((factor for factor in (8, 4, 2) if side >= 2 * factor * size), 1)


def _square_to(out: np.ndarray, image: np.ndarray) -> None:
    """Write what `pixels.square` returns to `out`, without a copy of the square."""
    height, width = image.shape[:2]
    side, size = min(height, width), len(out)
    top, left = (height - side) // 2, (width - side) // 2
    part = image[top : top + side, left : left + side]
    if side == size:
        out[...] = part
        return
    kernel = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    cv2.resize(part, (size, size), dst=out, interpolation=kernel)


class LooseBlocks:
    """The files of a folder in order, as an iterable of `LooseBlock` of at most `block` files."""

    def __init__(
        self, folder: Path, files: Sequence[str], *, size: int, block: int, threads: int, exact: bool = False
    ) -> None:
        self.folder, self.files, self.size, self.block = folder, files, size, block
        self.threads, self.exact = threads, exact

    def __len__(self) -> int:
        return -(-len(self.files) // self.block)

    def __iter__(self) -> Iterator[LooseBlock]:
        cv2.setNumThreads(1)  # the pool is the parallelism
        starts = iter(range(0, len(self.files), self.block))
        with ThreadPoolExecutor(self.threads, "decode") as pool:
            ahead = deque(self._submit(start, pool) for start in itertools.islice(starts, AHEAD))
            try:
                while ahead:
                    block = self._joined(*ahead.popleft())
                    ahead.extend(self._submit(start, pool) for start in itertools.islice(starts, 1))
                    yield block
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self, start: int, pool: ThreadPoolExecutor
    ) -> tuple[Sequence[str], np.ndarray, list[Future[list[str]]]]:
        files = self.files[start : start + self.block]
        images = np.empty((len(files), self.size, self.size, 3), np.uint8)
        step = max(1, min(PART, -(-len(files) // self.threads)))
        parts = [slice(low, low + step) for low in range(0, len(files), step)]
        return files, images, [pool.submit(self._decode, files[part], images[part]) for part in parts]

    def _decode(self, files: Sequence[str], images: np.ndarray) -> list[str]:
        reasons = []
        for file, out in zip(files, images, strict=True):
            try:
                decode_file(self.folder / file, out, exact=self.exact)
                reasons.append("")
            except Rejected as error:
                reasons.append(str(error) or "not a usable image")
        return reasons

    @staticmethod
    def _joined(files: Sequence[str], images: np.ndarray, parts: list[Future[list[str]]]) -> LooseBlock:
        reasons = [reason for part in parts for reason in part.result()]
        bad = [(file, reason) for file, reason in zip(files, reasons, strict=True) if reason]
        if not bad:
            return LooseBlock(list(files), images, [])
        good = np.array([not reason for reason in reasons], bool)
        kept = [file for file, reason in zip(files, reasons, strict=True) if not reason]
        return LooseBlock(kept, images[good], bad)
