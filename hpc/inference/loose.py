"""Loose image files as blocks for a network: found, read and decoded by threads, ahead of it.

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
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from data_shards.errors import UserError
from data_shards.files import read_bytes
from data_shards.images.jpeg import read_head
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected
from data_shards.images.placed import lay
from data_shards.sampling.placed import Placed
from data_shards.sampling.view import View, still
from data_shards.sources.video_frames import ENDINGS

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
LARGEST = 1 << 29  # bytes of a file: more than any format needs for what `normalize.py` allows
MOST = 1 << 25  # pixels of a JPEG that is decoded without further checks
AHEAD = 3  # blocks that are decoded while the network looks at one
PART = 8  # files that one thread takes at a time


@dataclass(frozen=True)
class LooseBlock:
    """Consecutive files: the readable ones as the network sees them, and why the others are not."""

    files: list[str]  # [n] relative to the folder
    images: np.ndarray  # uint8 [n, h, w, 3] RGB
    placed: Placed  # of the images
    rejected: list[tuple[str, str]]  # file, reason


def find_images(
    place: Path,
    *,
    but: Sequence[Path] = (),
    key: str = "in",
    kinds: str = "an image, a video, a folder or a packed set",
) -> tuple[Path, list[str]]:
    """Return a folder and the image and video files below it, sorted; of a file its folder and its name.

    Raises UserError where there are none. Links to folders are not followed. but: folders to leave out, such
    as the ones where an earlier prediction has drawn. key: the option that names the place; kinds: that it
    takes.
    """
    if place.is_file():
        return place.parent, [place.name]
    if not place.is_dir():
        raise UserError(f"{key}={place} does not exist: give {kinds}")
    left_out = [folder.resolve() for folder in but]
    files = [
        os.path.relpath(os.path.join(folder, name), place)
        for folder, _, names in os.walk(place)
        if not any(Path(folder).resolve().is_relative_to(each) for each in left_out)
        for name in names
        if name.lower().endswith((*SUFFIXES, *ENDINGS)) and not name.startswith(".")
    ]
    if not files:
        raise UserError(f"{key}={place} holds no image: give a folder with {', '.join(SUFFIXES)} files")
    return place, sorted(files)


def decode_file(path: Path | str, out: np.ndarray, view: View, *, exact: bool = False) -> tuple[int, int]:
    """Decode a file to `out` uint8 [h, w, 3] RGB, the target of `view`, nothing random.

    Returns width and height of the upright image. Raises Rejected.
    """
    try:
        data = read_bytes(path, limit=LARGEST)
    except UserError as error:
        raise Rejected(str(error).split(": ", 1)[0]) from None
    if size := _decode_plain(data, out, view, exact):
        return size
    image = pixels(data)
    lay_image(out, image if image.shape[2] == 3 else image.repeat(3, axis=2), view)
    return image.shape[1], image.shape[0]


def _decode_plain(data: bytes, out: np.ndarray, view: View, exact: bool) -> tuple[int, int] | None:
    """Decode an upright JPEG in grey or YCbCr; None where it is not that, or not whole."""
    if data[:2] != b"\xff\xd8":
        return None
    try:
        head = read_head(data)
        plain = head.orientation == 1 and head.components in (1, 3) and head.common and head.adobe != 0
        if not plain or head.width * head.height > MOST or data.count(b"\xff\xda") > 64:
            return None
        factor = 1 if exact else _factor(min(head.width, head.height), max(view.target))
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
        return None  # the slow way says why, or reads it after all
    lay_image(out, image, view)
    return head.width, head.height


def _factor(side: int, size: int) -> int:
    """Return by how much a JPEG may be reduced so that its shorter side stays at least twice `size`."""
    return next((factor for factor in (8, 4, 2) if side >= 2 * factor * size), 1)


def lay_image(out: np.ndarray, image: np.ndarray, view: View) -> None:
    """Lay a decoded image uint8 [h, w, 3] into its target, as evaluation sees it."""
    height, width = image.shape[:2]
    lay(out, image, still(view, np.array([width]), np.array([height])).placed.window(0))


class _Decoded(NamedTuple):
    size: tuple[int, int] = (0, 0)  # width, height
    reason: str = ""  # why it is not usable


class LooseBlocks:
    """The files of a folder in order, as an iterable of `LooseBlock` of at most `block` files."""

    def __init__(
        self, folder: Path, files: Sequence[str], *, view: View, block: int, threads: int, exact: bool = False
    ) -> None:
        self.folder, self.files, self.view, self.block = folder, files, view, block
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
    ) -> tuple[Sequence[str], np.ndarray, list[Future[list[_Decoded]]]]:
        files = self.files[start : start + self.block]
        images = np.empty((len(files), *self.view.target, 3), np.uint8)
        step = max(1, min(PART, -(-len(files) // self.threads)))
        parts = [slice(low, low + step) for low in range(0, len(files), step)]
        return files, images, [pool.submit(self._decode, files[part], images[part]) for part in parts]

    def _decode(self, files: Sequence[str], images: np.ndarray) -> list[_Decoded]:
        decoded = []
        for file, out in zip(files, images, strict=True):
            try:
                decoded.append(_Decoded(decode_file(self.folder / file, out, self.view, exact=self.exact)))
            except Rejected as error:
                decoded.append(_Decoded(reason=str(error) or "not a usable image"))
        return decoded

    def _joined(
        self, files: Sequence[str], images: np.ndarray, parts: list[Future[list[_Decoded]]]
    ) -> LooseBlock:
        decoded = [each for part in parts for each in part.result()]
        good = np.array([not each.reason for each in decoded], bool)
        widths, heights = np.array([each.size for each in decoded if not each.reason]).reshape(-1, 2).T
        kept = [file for file, usable in zip(files, good, strict=True) if usable]
        bad = [(file, each.reason) for file, each in zip(files, decoded, strict=True) if each.reason]
        placed = still(self.view, widths, heights).placed
        return LooseBlock(kept, images if good.all() else images[good], placed, bad)
