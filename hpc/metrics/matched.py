"""Which detection has found which truth, at one overlap: what curves, recalls by group and pictures need.

As COCO matches: by falling score, each detection of an image takes the free truth of its class that it
overlaps most; one that finds none may lie in an ignored truth, and does not count then.
"""

from dataclasses import dataclass

import numpy as np
import torch

from data_shards.ragged import Ragged
from hpc.metrics.average_precision import Curve, curve
from hpc.metrics.boxes import covered, iou
from hpc.metrics.coco import Truths

OVERLAP = 0.5


@dataclass(frozen=True)
class Matched:
    """The k detections and the m truths of a set."""

    truth: np.ndarray  # int64 [k]: the truth that each detection has found; -1: none
    counted: np.ndarray  # bool [k]: not in an ignored truth
    scores: np.ndarray  # float64 [k]
    found: np.ndarray  # float64 [m]: the score by which a truth was found; -inf: it was not
    judged: np.ndarray  # bool [m]: truths that are not ignored

    def curve(self) -> Curve:
        """Precision and recall by the score."""
        return curve(self.scores[self.counted], self.truth[self.counted] >= 0, int(self.judged.sum()))


def match(truths: Truths, found: Ragged, *, overlap: float = OVERLAP, agnostic: bool = False) -> Matched:
    """Match the detections `found` [k, 6] x0, y0, x1, y1, score, class with the truths of their images.

    agnostic: by place alone, whatever the classes are.
    """
    rows = found.rows.double()
    truth = np.full(len(rows), -1, np.int64)
    counted = np.ones(len(rows), bool)
    ignored = torch.from_numpy(truths.ignored)
    kinds = torch.from_numpy(truths.classes).double()
    for image in np.flatnonzero(found.counts * truths.boxes.counts):
        part = slice(int(found.starts[image]), int(found.starts[image + 1]))
        own = slice(int(truths.boxes.starts[image]), int(truths.boxes.starts[image + 1]))
        guesses, boxes, left_out = rows[part], truths.boxes.rows[own], ignored[own]
        same = torch.ones(len(guesses), len(boxes), dtype=torch.bool)
        if not agnostic:
            same = guesses[:, 5:6] == kinds[own][None]
        near = torch.where(same & ~left_out, iou(guesses[:, :4], boxes), -1.0)
        inside = torch.where(same & left_out, covered(guesses[:, :4], boxes), -1.0)
        taken = _taken(guesses[:, 4].numpy(), near.numpy(), overlap)
        truth[part] = np.where(taken >= 0, taken + own.start, -1)
        counted[part] = (taken >= 0) | ~(inside >= overlap).any(1).numpy()
    scores = rows[:, 4].numpy()
    by = np.full(len(truths.classes), -np.inf)
    by[truth[truth >= 0]] = scores[truth >= 0]
    return Matched(truth, counted, scores, by, ~truths.ignored)


def _taken(scores: np.ndarray, near: np.ndarray, overlap: float) -> np.ndarray:
    """Return the column of `near` [k, m] that each row takes, by falling score; -1: none."""
    taken = np.full(len(near), -1, np.int64)
    free = near.copy()
    for row in np.argsort(-scores, kind="stable"):
        best = int(free[row].argmax()) if near[row].max() >= overlap else -1
        if best >= 0 and free[row, best] >= overlap:
            taken[row] = best
            free[:, best] = -1.0
    return taken


def confusion(truths: Truths, found: Ragged, classes: int, *, score: float) -> np.ndarray:
    """Count pairs of a true and a predicted class, [classes + 1, classes + 1]; the last one is no object.

    Detections of at least this score are matched by place alone; ignored truths, and what lies in them, do
    not count.
    """
    kept = found.rows[:, 4] >= score
    sums = np.concatenate([[0], np.cumsum(kept.numpy())])
    found = Ragged(found.rows[kept], sums[found.starts])
    matched = match(truths, found, agnostic=True)
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    kinds = found.rows[:, 5].numpy().astype(np.int64)
    hit, false = matched.truth >= 0, matched.counted & (matched.truth < 0)
    np.add.at(counts, (truths.classes[matched.truth[hit]], kinds[hit]), 1)
    np.add.at(counts, (np.full(int(false.sum()), classes), kinds[false]), 1)
    missed = matched.judged & np.isinf(matched.found)
    np.add.at(counts, (truths.classes[missed], np.full(int(missed.sum()), classes)), 1)
    return counts
