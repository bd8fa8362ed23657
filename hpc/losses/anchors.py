"""Anchors that fit the boxes of a training set: k-means over their sides, kept where more boxes are matched.

As YOLOv5's automatic anchors (Jocher et al., release 6.0), whose measure is the best possible recall: the
share of boxes that at least one anchor may answer for (`hpc/losses/assignment.py`). The published anchors
stay where they reach `ENOUGH` of it. The means are taken in logarithms, in which the matching measures, from
a start without chance: the same set has the same anchors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc.losses.assignment import RATIO

ENOUGH = 0.98  # best possible recall with which the published anchors stay
LEAST = 2.0  # pixels: smaller boxes are not counted, and ops drop them
MOST_BOXES = 100_000  # that the means look at, evenly over the set
ROUNDS = 60


@dataclass(frozen=True)
class Fitted:
    """Anchors, and how well they fit."""

    anchors: np.ndarray  # float32 [scales, anchors, 2], width and height in pixels, by rising area
    recall: float  # best possible, of the boxes, in [0, 1]
    before: float  # that of the anchors that were given
    boxes: int


def fit(sides: np.ndarray, given: np.ndarray, *, ratio: float = RATIO) -> Fitted:
    """Return anchors for boxes with these `sides` [m, 2] in pixels of the network's images.

    given: [scales, anchors, 2], which stay where they are good enough, or no worse
    """
    sides = np.asarray(sides, np.float64).reshape(-1, 2)
    sides = sides[(sides >= LEAST).all(1)]
    given = np.asarray(given, np.float32)
    scales, each, _ = given.shape
    before = recall(sides, given.reshape(-1, 2), ratio=ratio)
    kept = Fitted(given, before, before, len(sides))
    if before >= ENOUGH or len(np.unique(sides, axis=0)) < scales * each:
        return kept
    step = -(-len(sides) // MOST_BOXES)
    found = _means(np.log(sides[::step]), scales * each)
    anchors = np.exp(found[np.argsort(found.sum(1), kind="stable")]).round(2).astype(np.float32)
    after = recall(sides, anchors, ratio=ratio)
    if after <= before:
        return kept
    return Fitted(anchors.reshape(scales, each, 2), after, before, len(sides))


def recall(sides: np.ndarray, anchors: np.ndarray, *, ratio: float = RATIO) -> float:
    """Return the share of boxes [m, 2] that some anchor [a, 2] may answer for; 1 without boxes."""
    if not len(sides):
        return 1.0
    worst = np.full(len(sides), np.inf)
    for anchor in np.asarray(anchors, np.float64):
        by = sides / anchor
        worst = np.minimum(worst, np.maximum(by, 1 / by).max(1))
    return float((worst < ratio).mean())


def sides_of(shards: Any, size: int, *, field: str = "boxes", flags: str = "box_flags") -> np.ndarray:
    """Return the sides [m, 2] of the boxes of an opened set, in pixels of images of `size` that hold all.

    The longer side of an image becomes `size`. Ignored boxes do not count.
    """
    column = shards.ragged[field]
    counts: np.ndarray = np.diff(np.asarray(column.start, np.int64))
    longer = np.maximum(shards.width, shards.height).astype(np.float64)
    sides = np.asarray(column.rows)[:, 2:4].astype(np.float64) * np.repeat(size / longer, counts)[:, None]
    if flags in shards.ragged:
        sides = sides[np.asarray(shards.ragged[flags].rows)[:, 0] != 1]
    return sides


def _means(points: np.ndarray, count: int) -> np.ndarray:
    """Return `count` means [count, 2] of points [m, 2] (Lloyd 1982).

    The first means are those of equal parts by rising area; a mean that loses all points stays.
    """
    order = np.argsort(points.sum(1), kind="stable")
    means = np.stack([points[part].mean(0) for part in np.array_split(order, count)])
    owner = np.full(len(points), -1)
    for _ in range(ROUNDS):
        distance = np.stack([np.square(points - mean).sum(1) for mean in means])
        nearest = distance.argmin(0)
        if (nearest == owner).all():
            break
        owner = nearest
        sizes = np.bincount(owner, minlength=count)
        sums = np.stack([np.bincount(owner, points[:, axis], count) for axis in (0, 1)], 1)
        means = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], means)
    return means
