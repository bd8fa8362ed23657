"""How far landmarks are from where they were marked, as a share of the object: the normalised mean error.

By the diagonal of the object's box, which all objects have, and of faces by the distance of the eyes, as is
usual for them (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV Workshops 2013).
"""

from dataclasses import dataclass

import numpy as np

from data_shards.sampling.placed import UNKNOWN_POINT


@dataclass(frozen=True)
class LandmarkErrors:
    """Errors of m objects with p landmarks."""

    distance: np.ndarray  # float64 [m, p]: pixels; NaN where a landmark is not known
    diagonal: np.ndarray  # float64 [m]: of the boxes, in pixels
    apart: np.ndarray  # float64 [m]: pixels from eye to eye; NaN where one of them is not known

    def by_diagonal(self) -> float:
        """The mean over objects of the mean over their known landmarks; NaN without any."""
        return _mean(self.distance / self.diagonal[:, None])

    def by_eyes(self) -> float:
        """The same in distances of the eyes, of those objects of which both are known."""
        return _mean(self.distance / np.where(self.apart > 0, self.apart, np.nan)[:, None])

    def of_each(self) -> np.ndarray:
        """float64 [p]: the mean error of each landmark, by the diagonal; NaN where it is never known."""
        shares = self.distance / self.diagonal[:, None]
        known = np.isfinite(shares)
        sums = np.where(known, shares, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), np.nan)


def errors(
    found: np.ndarray, truth: np.ndarray, boxes: np.ndarray, *, eyes: tuple[int, int] | None = None
) -> LandmarkErrors:
    """Compare landmarks `found` [m, p, 2] with the `truth` [m, p, 2], both in pixels.

    boxes: [m, 4] x0, y0, x1, y1 of the true objects. eyes: which two of the landmarks (None = none are).
    """
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    known = (truth != UNKNOWN_POINT).any(axis=2)
    distance = np.where(known, np.hypot(*np.moveaxis(found - truth, 2, 0)), np.nan)
    sides = np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]
    apart = np.full(len(truth), np.nan)
    if eyes is not None:
        one, other = truth[:, eyes[0]], truth[:, eyes[1]]
        apart = np.where(known[:, list(eyes)].all(axis=1), np.hypot(*(one - other).T), np.nan)
    return LandmarkErrors(distance, np.hypot(*sides.T), apart)


def _mean(shares: np.ndarray) -> float:
    known = np.isfinite(shares)
    some = known.any(axis=1)
    sums = np.where(known, shares, 0.0).sum(axis=1)
    return float((sums[some] / known[some].sum(axis=1)).mean()) if some.any() else float("nan")
