"""Figures by group of people: which labels split a set, each group's figure, the gap, and intervals.

The gap is the largest figure of a group less the smallest. Intervals come from resampling whole people (or
images, where people are not known), since images of one person are alike. The gap of resamples is larger than
that of the samples, which is larger than the true one, so its interval comes from the groups' deviations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.inspect.groups import MOST, Group, group_of

SUPPORT = 10  # samples that a group needs to count for a gap
Figures = Callable[[np.ndarray], dict[str, float]]  # weights [n] of the samples -> figures


@dataclass(frozen=True)
class Groups:
    """The labels that split a set, and whom each of its samples shows (None = each somebody else)."""

    columns: Mapping[str, Group] = field(default_factory=dict)
    units: np.ndarray | None = None

    def units_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the unit of each sample that is drawn as a whole, [n]."""
        return np.arange(len(ids)) if self.units is None else np.asarray(self.units)[ids]


def groups_of(shards: Any, wanted: Sequence[str] = ()) -> Groups:
    """Find the labels of a packed set that split it; `wanted` names them (empty = all classes, and age).

    Raises UserError for a label that the set lacks, or that makes no groups.
    """
    fields = {name: each for name, each in shards.schema.columns.items() if name != "identity"}
    for name in wanted:
        if name not in fields:
            known = ", ".join(fields) or "no label"
            raise UserError(f"groups={name}: {shards.folder} has no such label, only {known}")
    columns = {}
    for name in wanted or fields:
        group = group_of(name, fields[name], np.asarray(shards.labels[name]))
        if group is not None:
            columns[name] = group
        elif wanted:
            raise UserError(
                f"groups={name}: its values make no groups (a class, or at most {MOST} whole numbers): "
                "leave it out"
            )
    people = len(shards.identity_start) - 1
    return Groups(columns, _units(np.asarray(shards.labels["identity"])) if people < len(shards) else None)


def _units(identity: np.ndarray) -> np.ndarray:
    """Return the unit of each sample: its person; each image of an unknown one (-1) is its own."""
    return np.where(identity < 0, -1 - np.arange(len(identity)), identity)


@dataclass(frozen=True)
class Split:
    """Figures by group of one label: [group][figure], with 95 % intervals where they were asked for."""

    names: tuple[str, ...]  # of the groups that occur
    samples: np.ndarray
    figures: list[dict[str, float]]
    intervals: list[dict[str, tuple[float, float]]]
    gaps: dict[str, float]  # by figure, over the groups of SUPPORT samples or more
    gap_intervals: dict[str, tuple[float, float]]


def split(
    figures: Figures, group: Group, ids: np.ndarray, units: np.ndarray, *, rounds: int, seed: int = 0
) -> Split:
    """Compute `figures` of the samples `ids` [n] for each group. `units` [n]: what is drawn as a whole."""
    codes = np.asarray(group.codes)[ids]
    occur = [code for code in range(len(group.names)) if (codes == code).any()]
    masks = [codes == code for code in occur]
    counts = np.array([int(mask.sum()) for mask in masks])
    enough = [place for place, count in enumerate(counts) if count >= SUPPORT]

    def everything(weight: np.ndarray) -> dict[str, float]:
        found = [figures(weight * mask) for mask in masks]
        return {f"{place}/{name}": value for place, part in enumerate(found) for name, value in part.items()}

    if not occur:
        return Split((), counts, [], [], {}, {})
    flat = everything(np.ones(len(ids)))
    drawn = resampled(everything, units, rounds=rounds, seed=seed)
    spread = {name: _percentiles(values) for name, values in drawn.items()}
    gaps, gap_intervals = {}, {}
    for name in _below(flat, "0") if len(enough) > 1 else ():
        keys = [f"{place}/{name}" for place in enough if np.isfinite(flat[f"{place}/{name}"])]
        gaps[name] = float(np.ptp([flat[key] for key in keys])) if len(keys) > 1 else float("nan")
        if len(keys) > 1 and rounds:
            off = np.stack([drawn[key] - flat[key] for key in keys])
            if interval := _gap_interval(gaps[name], off):
                gap_intervals[name] = interval
    return Split(
        tuple(group.names[code] for code in occur),
        counts,
        [_below(flat, str(place)) for place in range(len(occur))],
        [_defined(_below(spread, str(place))) for place in range(len(occur))],
        gaps,
        gap_intervals,
    )


def _below(flat: Mapping[str, Any], head: str) -> dict[str, Any]:
    return {name.partition("/")[2]: value for name, value in flat.items() if name.partition("/")[0] == head}


def _defined(found: Mapping[str, tuple[float, float] | None]) -> dict[str, tuple[float, float]]:
    return {name: interval for name, interval in found.items() if interval is not None}


def _gap_interval(gap: float, off: np.ndarray) -> tuple[float, float] | None:
    """Return an interval that holds the true gap in 95 % or more; None where it is not defined.

    off: how far the figures of the groups are from those of the samples in each resample [groups, rounds].
    The difference of any two groups is wrong by less than their range in 95 %, so the largest is too
    (Tukey's simultaneous intervals, with the range's distribution from the bootstrap).
    """
    kept = off[:, np.isfinite(off).all(0)]
    if 2 * kept.shape[1] <= off.shape[1]:
        return None
    reach = float(np.percentile(np.ptp(kept, axis=0), 95))
    return max(gap - reach, 0.0), gap + reach


def intervals(
    figures: Figures, units: np.ndarray, *, rounds: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals of `figures` by drawing the units [n] with replacement.

    A figure that is not defined in half of the rounds or more has none. {} without rounds.
    """
    drawn = resampled(figures, units, rounds=rounds, seed=seed)
    return _defined({name: _percentiles(values) for name, values in drawn.items()})


def resampled(figures: Figures, units: np.ndarray, *, rounds: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Compute `figures` of so many resamples of the units [n], drawn with replacement: arrays [rounds].

    NaN where a figure is not defined. {} without rounds.
    """
    people, code = np.unique(units, return_inverse=True)
    stream = counter_rng.key(seed, "bootstrap groups")
    drawn: dict[str, np.ndarray] = {}
    for number in range(rounds):
        uniform = counter_rng.uniform(stream, np.array([number]), len(people))[0]
        times = np.bincount((uniform * len(people)).astype(np.int64), minlength=len(people))
        for name, value in figures(times[code].astype(np.float64)).items():
            drawn.setdefault(name, np.full(rounds, np.nan))[number] = value
    return drawn


def _percentiles(values: np.ndarray) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    if 2 * len(finite) <= len(values):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
