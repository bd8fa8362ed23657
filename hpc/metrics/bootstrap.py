"""Figures of many resamples at once: whole people (or images) are drawn with replacement.

A set of figures takes the rows of a part of the samples and their weights in all rounds, [n, rounds], so that
a thousand rounds are a few passes over an array. Round `r` draws the same units in every part and on every
machine: `counter_rng` counts them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from data_shards import counter_rng

Array = np.ndarray
CELLS = 1 << 22  # weights that are held at once: 16 MB


class Measured(NamedTuple):
    """A figure, or several of one kind such as the true positive rates of all classes."""

    values: Array  # [m, rounds] float64, NaN where not defined
    support: Array  # [m, rounds], the weight of the samples that each is a mean of


# rows [n] of the samples, their weights [n, rounds] float32 -> figures by name. Weights are whole numbers:
# their sums are exact in any order up to 2^24.
Figures = Callable[[Array, Array], dict[str, Measured]]


def mean(values: Array, weight: Array) -> Measured:
    """Return the weighted mean of `values` [n] in each round of `weight` [n, rounds]."""
    total = weight.sum(0, dtype=np.float64)
    # einsum and not BLAS, whose last digit depends on the number of threads
    found = np.einsum("n,nr->r", np.asarray(values, np.float64), weight, dtype=np.float64)
    return Measured(share(found, total)[None], total[None])


def share(hits: Array, of: Array) -> Array:
    """Return hits / of, NaN where `of` is 0."""
    hits, of = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    return np.divide(hits, of, out=np.full(np.broadcast(hits, of).shape, np.nan), where=of != 0)


def blocks_of(units: Array, rounds: int) -> list[slice]:
    """Return the rounds in blocks whose weights fit into CELLS."""
    step = max(1, CELLS // max(len(units), 1))
    return [slice(low, min(low + step, rounds)) for low in range(0, rounds, step)]


def weights(units: Array, rounds: slice, *, seed: int = 0) -> Array:
    """Return how often each sample is drawn in the rounds, [n, rounds] float32.

    `units` [n]: what is drawn as a whole.
    """
    people, code = np.unique(units, return_inverse=True)
    count, numbers = len(people), np.arange(rounds.start, rounds.stop)
    uniform = counter_rng.uniform(counter_rng.key(seed, "bootstrap groups"), numbers, count)
    drawn = (uniform * count).astype(np.int64) + count * np.arange(len(numbers))[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * len(numbers)).reshape(len(numbers), count)
    return np.ascontiguousarray(times.T.astype(np.float32))[code]


def flat(figures: Figures, rows: Array) -> dict[str, Measured]:
    """Return the figures of the samples `rows` themselves, each [m, 1]."""
    return figures(rows, np.ones((len(rows), 1), np.float32))


def resampled(
    figures: Figures, parts: Mapping[str, Array], units: Array, *, rounds: int, seed: int = 0
) -> dict[str, dict[str, Array]]:
    """Compute `figures` of each part (rows of the samples) in so many resamples: values [m, rounds].

    `units` [n]: of all samples. {} for each part without rounds.
    """
    found: dict[str, dict[str, list[Array]]] = {name: {} for name in parts}
    for block in blocks_of(units, rounds) if len(units) else ():
        weight = weights(units, block, seed=seed)
        for name, rows in parts.items():
            everything = len(rows) == len(units)
            for figure, each in figures(rows, weight if everything else weight[rows]).items():
                found[name].setdefault(figure, []).append(each.values)
    return {
        name: {figure: np.concatenate(blocks, 1) for figure, blocks in part.items()}
        for name, part in found.items()
    }


def percentiles(values: Array) -> tuple[float, float] | None:
    """Return the 95 % interval of resampled `values` [rounds]; None where half of them are not defined."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) <= len(values):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def intervals(
    figures: Figures, units: Array, *, rounds: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals of the single figures of all samples; {} without rounds."""
    drawn = resampled(figures, {"all": np.arange(len(units))}, units, rounds=rounds, seed=seed)["all"]
    found = {name: percentiles(values[0]) for name, values in drawn.items() if len(values) == 1}
    return {name: interval for name, interval in found.items() if interval is not None}
