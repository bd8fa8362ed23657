"""Which stored image a decoder reads: the original, or a twin, its smaller copy (`shard_format/twins.py`).

A pure function of crop and target: the smallest twin serves that has at least the target's pixels inside the
crop, else the original. Requests keep the coordinates of originals, which labels follow; only decoders see
those of `Served`. Both name the same part of the picture: the edges of a crop are rounded to whole pixels of
the twin, at most half a pixel of the target. Training only: figures and reference statistics read originals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.loading.reader import Reader
from data_shards.sampling.placed import Placed
from data_shards.shard_format.twins import open_twin


@dataclass(frozen=True)
class Served:
    """What is read for N windows, and where the crop is in it; the windows of one image read the same."""

    which: np.ndarray  # [N] int8: 0: the original, k: the k-th smallest of the twins that may serve
    source: np.ndarray  # [N, 2] int32: width, height of the stored image
    crop: np.ndarray  # [N, 4] int32: x, y, width, height in its pixels

    def __getitem__(self, rows: slice) -> "Served":
        return Served(self.which[rows], self.source[rows], self.crop[rows])

    def placed(self, placed: Placed) -> Placed:
        """The same as `placed`, in the coordinates of the stored images."""
        return Placed(self.source, self.crop, placed.size, placed.offset, placed.flip, placed.target)


def serve(
    source: np.ndarray, crop: np.ndarray, size: np.ndarray, grids: Sequence[np.ndarray], each: int = 1
) -> Served:
    """Choose what to read for N windows, `each` of them in succession of one image.

    source, crop: [N, 2] and [N, 4], as in `Placed`; size: [N, 2] or [2], width, height of the resized crop;
    grids: [N, 2] of each twin, the smallest one first: width, height, 0 = the image has no such twin.
    """
    chosen = Served(np.zeros(len(source), np.int8), source.astype(np.int32), crop.astype(np.int32))
    for number, grid in reversed([*enumerate(grids, 1)]):
        edges = [_rounded(corner, grid, source) for corner in (crop[:, :2], crop[:, :2] + crop[:, 2:])]
        sides = edges[1] - edges[0]
        enough = (sides >= size).all(axis=1).reshape(-1, each).all(axis=1).repeat(each)
        chosen.which[enough] = number
        chosen.source[enough] = grid[enough]
        chosen.crop[enough] = np.concatenate([edges[0], sides], axis=1)[enough]
    return chosen


def _rounded(edge: np.ndarray, grid: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Edges [N, 2] in pixels of `source` as whole pixels of `grid`, the nearest ones."""
    long = source.astype(np.int64)
    return (2 * edge.astype(np.int64) * grid + long) // (2 * long)


class TwinReaders:
    """The twins of a loader's sets, opened, with what reads their bytes."""

    def __init__(self, sets: Sequence[Any], sides: Sequence[int]) -> None:
        """sides: of the twins that may serve. Raises UserError if a set lacks one of them."""
        self._twins = [[open_twin(shards, side) for side in sorted(sides)] for shards in sets]
        self._readers = [[Reader(twin) for twin in twins] for twins in self._twins]

    def serve(self, ids: np.ndarray, sets: np.ndarray, placed: Placed) -> Served:
        """Choose what to read of images `ids` [n] of the sets `sets` [n]; UserError for a damaged index.

        placed: their windows, as many of each image.
        """
        grids = np.zeros((len(self._twins[0]), len(ids), 2), np.int64)
        for number, twins in enumerate(self._twins):
            rows = np.flatnonzero(sets == number)
            for grid, twin in zip(grids, twins, strict=True):
                twin.verify(ids[rows])
                grid[rows, 0], grid[rows, 1] = twin.width[ids[rows]], twin.height[ids[rows]]
        each = len(placed) // len(ids) if len(ids) else 1
        windows = [np.repeat(grid, each, axis=0) for grid in grids]
        return serve(placed.source, placed.crop, placed.size, windows, each)

    def of(self, number: int) -> Iterator[tuple[Any, Reader]]:
        """The twins of a set, the smallest first, and their readers."""
        return zip(self._twins[number], self._readers[number], strict=True)

    def close(self) -> None:
        """Close all files."""
        for readers in self._readers:
            for reader in readers:
                reader.close()
