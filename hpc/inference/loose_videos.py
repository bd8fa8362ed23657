"""Frames of video files as blocks for a network, evenly spaced. Loose images: `loose.py`.

A frame is named after its file and its number in it, from 0: `clip.mp4#120`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_shards.sampling.view import View, still
from data_shards.sources.video_frames import decoded
from hpc.inference.loose import LooseBlock, lay_image

FRAMES = 16  # of a video


class VideoBlocks:
    """The frames of videos in order, as an iterable of `LooseBlock` of at most `block` frames of one video.

    frames: of each video; one that has fewer gives all. A video that ends too early or does not decode is
    listed as rejected, after the frames before that place.
    """

    def __init__(
        self, folder: Path, files: Sequence[str], *, view: View, block: int, frames: int = FRAMES
    ) -> None:
        self.folder, self.files, self.view = folder, files, view
        self.block, self.frames = block, frames

    def __len__(self) -> int:
        return len(self.files) * -(-self.frames // self.block)

    def __iter__(self) -> Iterator[LooseBlock]:
        for file in self.files:
            yield from self._of(file)

    def _of(self, file: str) -> Iterator[LooseBlock]:
        names: list[str] = []
        images: list[np.ndarray] = []
        sizes: list[tuple[int, int]] = []
        rejected: list[tuple[str, str]] = []
        try:
            for number, frame in decoded(str(self.folder / file), self.frames):
                out = np.empty((*self.view.target, 3), np.uint8)
                lay_image(out, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), self.view)
                names.append(f"{file}#{number}")
                images.append(out)
                sizes.append((frame.shape[1], frame.shape[0]))
                if len(names) == self.block:
                    yield self._joined(names, images, sizes, [])
                    names, images, sizes = [], [], []
        except OSError as error:
            rejected.append((file, str(error)))
        if names or rejected:
            yield self._joined(names, images, sizes, rejected)

    def _joined(
        self,
        names: list[str],
        images: list[np.ndarray],
        sizes: list[tuple[int, int]],
        rejected: list[tuple[str, str]],
    ) -> LooseBlock:
        widths, heights = np.array(sizes, np.int64).reshape(-1, 2).T
        empty = np.empty((0, *self.view.target, 3), np.uint8)
        placed = still(self.view, widths, heights).placed
        return LooseBlock(names, np.stack(images) if images else empty, placed, rejected)


class Joined:
    """Several iterables of blocks, one after another."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[LooseBlock]:
        for part in self.parts:
            yield from part
