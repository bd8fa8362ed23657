"""Precision and recall of scored detections: curves over the score, the area below them, the best F1.

A detection is right or wrong, and scores order them; how they are matched with the truth is for others to
say: `wider.py`, and COCO's protocol in `hpc/evaluation/detections.py`. Numpy in float64.
"""

from dataclasses import dataclass

import numpy as np

from hpc.metrics.bootstrap import Figures, Measured, mean


@dataclass(frozen=True)
class Curve:
    """Precision and recall of all detections whose score is at least `scores` [k], which fall."""

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Their harmonic mean, [k]; 0 where both are 0."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def best(self) -> int:
        """The place of the largest F1, of equal ones the first; the curve must not be empty."""
        return int(self.f1.argmax())


def curve(scores: np.ndarray, right: np.ndarray, truths: int) -> Curve:
    """Return the curve of detections with `scores` [n], which are `right` bool [n]; one point a score.

    truths: what there is to find. Equal scores are one point, so their order does not count.
    """
    order = np.argsort(-scores, kind="stable")
    scores, right = np.asarray(scores, np.float64)[order], np.asarray(right, bool)[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, int)
    found = np.cumsum(right)[last] if len(last) else np.zeros(0)
    return Curve(scores[last], found / (last + 1), found / max(truths, 1))


def area(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return the areas [...] below curves, their precision made monotonous from the right (VOC 2010).

    recall: [..., k], rising. A precision [..., k] counts for the step of recall that leads to it.
    """
    envelope = np.maximum.accumulate(np.asarray(precision, np.float64)[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray((np.diff(recall, prepend=0.0) * envelope).sum(-1))


def recall_figures(found: np.ndarray) -> Figures:
    """Return the recall of truths, which are `found` bool [m], in many resamples at once."""

    def figures(rows: np.ndarray, weight: np.ndarray) -> dict[str, Measured]:
        return {"recall": mean(found[rows], weight)}

    return figures
