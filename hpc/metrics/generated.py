"""Figures of generated images, from features [n, d] of a network: how far are two sets of images apart?

Frechet distance (Heusel et al. 2017, section 3), KID (Binkowski et al. 2018), precision and recall
(Kynkaanniemi et al. 2019), Inception Score (Salimans et al. 2016), nearest neighbours. Pure numpy in float64.
What makes the features is in `hpc/evaluation/features.py`, who walks over images in
`hpc/evaluation/generated.py`. Rows come sorted by id, so the sums do not depend on the ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_shards import counter_rng

_BLOCK = 1 << 22  # numbers of one block of distances
NEAREST = 3  # the neighbour whose distance is the radius of a sphere (Kynkaanniemi et al., section 3)


@dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] (over n - 1) of `count` rows of features."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Compute the moments of features [n, d]. ValueError for fewer than two rows."""
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"features of shape {rows.shape} have no covariance: two rows at least")
    mean = rows.mean(0)
    centred = rows - mean
    return Moments(len(rows), mean, centred.T @ centred / (len(rows) - 1))


def frechet(one: Moments, other: Moments) -> float:
    """Compute the Frechet distance of two normal distributions, 0 or more.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is the sum of the singular values of
    R1^T R2, with C = R R^T: it needs no root of a matrix that is not symmetric, and no small number is the
    root of a rounding error, also where there are fewer images than features.
    """
    shift = one.mean - other.mean
    cross = _root(one.covariance).T @ _root(other.covariance)
    overlap = np.linalg.svd(cross, compute_uv=False).sum() if cross.size else 0.0
    total = shift @ shift + np.trace(one.covariance) + np.trace(other.covariance) - 2.0 * overlap
    return float(max(total, 0.0))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return R [d, r] with R R^T = covariance, r its rank: what is beyond it is rounding."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0)
    kept = values > max(values.max(initial=0.0), 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def kid(
    one: np.ndarray, other: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Compute the kernel distance of features [n, d] and [m, d]: mean and deviation over subsets.

    The squared maximum mean discrepancy with the kernel (x y / d + 1)^3, without bias: it may be below
    0. A subset has `size` rows of each (or all, if there are fewer), drawn by seed without replacement.
    """
    size = min(size, len(one), len(other))
    if size < 2:
        raise ValueError("a kernel distance needs two rows of each at least")
    found = np.empty(subsets)
    for number in range(subsets):
        parts = [
            np.asarray(rows, np.float64)[_drawn(len(rows), size, seed, number, side)]
            for side, rows in enumerate((one, other))
        ]
        found[number] = _discrepancy(*parts)
    return float(found.mean()), float(found.std())


def _drawn(count: int, size: int, seed: int, number: int, side: int) -> np.ndarray:
    return counter_rng.permute(counter_rng.key(seed, "kid", number, side), np.arange(size), count)


def _discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    """The squared discrepancy without bias (Gretton et al. 2012, equation 3), of [n, d] and [n, d]."""
    n, d = one.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / d + 1.0) ** 3

    inside = sum(each.sum() - np.trace(each) for each in (kernel(one, one), kernel(other, other)))
    return float(inside / (n * (n - 1)) - 2.0 * kernel(one, other).mean())


def precision_recall(
    real: np.ndarray, generated: np.ndarray, *, nearest: int = NEAREST
) -> tuple[float, float]:
    """Compute improved precision and recall of features [n, d] and [m, d] (Kynkaanniemi et al. 2019).

    Precision is the share of generated images within the sphere of a real one, whose radius is the distance
    to its `nearest`-th neighbour among the real ones; recall is the same with the sides exchanged.
    """
    if min(len(real), len(generated)) <= nearest:
        raise ValueError(f"precision and recall need more than {nearest} images of each kind")
    return _covered(generated, real, nearest), _covered(real, generated, nearest)


def _covered(points: np.ndarray, centres: np.ndarray, nearest: int) -> float:
    radius = np.empty(len(centres))
    for block, squares in _squares(centres, centres):
        # of its own row an image is a neighbour at distance 0, whatever is rounded
        squares[np.arange(len(squares)), np.arange(block.start, block.stop)] = -1.0
        radius[block] = np.partition(squares, nearest, axis=1)[:, nearest]
    inside = sum(int((squares <= radius).any(1).sum()) for _, squares in _squares(points, centres))
    return inside / len(points)


def _squares(points: np.ndarray, centres: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield squared distances [k, m] of blocks of `points` [n, d] to `centres` [m, d], with their rows."""
    wide = np.asarray(centres, np.float64)
    lengths = np.einsum("md,md->m", wide, wide)
    step = max(_BLOCK // max(len(wide), 1), 1)
    for start in range(0, len(points), step):
        rows = np.asarray(points[start : start + step], np.float64)
        squares = np.einsum("nd,nd->n", rows, rows)[:, None] + lengths - 2.0 * rows @ wide.T
        yield slice(start, start + len(rows)), np.maximum(squares, 0.0)


def inception_score(probabilities: np.ndarray, *, splits: int = 10) -> tuple[float, float]:
    """Compute exp(mean KL(p(y|x) || p(y))) of probabilities [n, k]: mean and deviation over `splits` parts.

    The parts are consecutive rows of nearly equal number; there are at most as many as rows.
    """
    rows = np.asarray(probabilities, np.float64)
    if not len(rows):
        raise ValueError("an Inception Score needs an image at least")
    scores = []
    for part in np.array_split(rows, min(splits, len(rows))):
        mean = part.mean(0)
        # 0 log 0 = 0
        logs = np.log(np.where(part > 0, part, 1.0)) - np.log(np.where(mean > 0, mean, 1.0))
        scores.append(np.exp((part * logs).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def neighbours(
    queries: np.ndarray, references: np.ndarray, *, count: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of `references` [m, d] for each of `queries` [n, d].

    Returns row numbers [n, count] and distances [n, count], nearest first; of equal ones the lower number.
    """
    count = min(count, len(references))
    found, far = np.empty((len(queries), count), np.int64), np.empty((len(queries), count))
    for block, squares in _squares(queries, references):
        order = np.argsort(squares, axis=1, kind="stable")[:, :count]
        found[block], far[block] = order, np.sqrt(np.take_along_axis(squares, order, 1))
    return found, far
