"""Pairs of images that the network of a run finds alike: of one person, or of one picture cut differently."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from data_shards.shard_format.shard_set import ShardSet
from hpc.inference.predictor import Predictor

_ROWS, _COLUMNS = 1024, 16384  # embeddings that are compared at a time


def alike_pairs(
    model: Predictor, sets: Sequence[ShardSet], *, least: float, progress: Callable[[str, Any], Iterable[Any]]
) -> list[tuple[int, int, float]]:
    """Return (first, second, cosine) of all pairs of images from `least` on, sorted by number.

    Images are numbered through all sets, one after another. progress: (what, steps) -> the steps, shown.
    Memory: an embedding of float32 an image. Raises UserError for a run whose task gives no embedding, or for
    an image that does not decode.
    """
    parts = [
        model.embed(images)
        for shards in sets
        for images in progress(f"embedding {shards.name}", model.blocks(shards, np.arange(len(shards))))
    ]
    return cosine_pairs(np.concatenate(parts), least)


def cosine_pairs(vectors: np.ndarray, least: float) -> list[tuple[int, int, float]]:
    """Return (first, second, cosine) of all pairs of rows of `vectors` [n, d] from `least` on, sorted."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    pairs = []
    for low in range(0, len(units), _ROWS):
        rows = units[low : low + _ROWS]
        for left in range(low, len(units), _COLUMNS):
            cosines = rows @ units[left : left + _COLUMNS].T
            for one, other in zip(*np.nonzero(cosines >= least), strict=True):
                first, second = low + int(one), left + int(other)
                if first < second:
                    pairs.append((first, second, round(float(cosines[one, other]), 4)))
    return sorted(pairs)
