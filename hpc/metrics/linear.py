"""A linear model in closed form, the least that a network should beat. Pure numpy in float64."""

from dataclasses import dataclass

import numpy as np

STRENGTHS = np.logspace(-5, 3, 17)  # of the penalty, in units of the mean eigenvalue


@dataclass(frozen=True)
class Linear:
    """Predicts `offset` [k] + (features [n, d] - centre [d]) @ weights [d, k]."""

    centre: np.ndarray
    weights: np.ndarray
    offset: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self.offset + (np.asarray(features, np.float64) - self.centre) @ self.weights)


def ridge(features: np.ndarray, targets: np.ndarray) -> Linear:
    """Fit `targets` [n, k] by ridge regression on `features` [n, d]; NaN targets count as the mean.

    The penalty is that of the least generalised cross-validation error (Golub, Heath and Wahba, Technometrics
    1979), one for all targets, so that nothing is held out or drawn.
    """
    offset = mean_target(targets)
    wanted = np.where(np.isfinite(targets), targets, offset) - offset
    centre = np.asarray(features, np.float64).mean(0)
    centred = np.asarray(features, np.float64) - centre
    # Both sides have the same eigenvalues: the smaller matrix is taken apart.
    few = len(centred) < centred.shape[1]
    size, axes = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    size = np.maximum(size, 0.0)
    if few:
        along = axes.T @ wanted  # [n, k]
        square = size * (along**2).sum(1)
        axes = centred.T @ axes
    else:
        along = axes.T @ (centred.T @ wanted)
        square = (along**2).sum(1)
    total, count = (wanted**2).sum(), len(features)

    def error(strength: float) -> float:
        shrunk = 1 / (size + strength)
        left = total - (square * (2 * shrunk - size * shrunk**2)).sum()
        free = 1 - (1 + (size * shrunk).sum()) / count
        return float(left / free**2) if free > 1e-6 else np.inf

    strengths = STRENGTHS * max(float(size.mean()), 1e-12)
    best = min(strengths, key=error)
    return Linear(centre, axes @ (along / (size + best)[:, None]), offset)


def mean_target(targets: np.ndarray) -> np.ndarray:
    """Return the mean [k] of the known `targets` [n, k]; 0 where none is known."""
    known = np.isfinite(targets)
    return np.asarray(np.where(known, targets, 0.0).sum(0) / np.maximum(known.sum(0), 1))
