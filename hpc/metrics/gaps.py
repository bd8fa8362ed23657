"""How far the figures of groups differ, with bounds that hold for all pairs of groups at once.

The largest of many differences is large by chance, so its interval comes from the distribution of the largest
error among all pairs (max-t: Westfall and Young, Resampling-based multiple testing, 1993), of one label or of
all labels that split the set. Errors are measured in standard errors of their own pair: a small group does
not widen the bounds of large ones, as it does with Tukey's range.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpc.metrics import bootstrap
from hpc.metrics.bootstrap import Figures, Measured
from hpc.metrics.groups import Group

SUPPORT = 10  # samples that a group needs to count for a gap
TAIL = 3.0  # about the critical value of a dozen of groups, for which small groups are widened
LEAST = 1.96  # critical value of a single pair


@dataclass(frozen=True)
class Pairs:
    """All pairs of groups that count, of one figure: one entry for each pair and each of its members."""

    first: np.ndarray  # [p] place of the group
    second: np.ndarray
    difference: np.ndarray  # [p] first less second
    error: np.ndarray  # [p] standard error, widened for small groups (NaN without rounds)
    worst: np.ndarray  # [rounds] the largest error of a resample, in standard errors

    def critical(self, *others: "Pairs") -> float:
        """Return how many standard errors hold 95 % of the largest errors; NaN without rounds."""
        worst = [each.worst for each in (self, *others) if len(each.worst)]
        return max(float(np.percentile(np.max(worst, 0), 95)), LEAST) if worst else float("nan")

    def bounds(self, critical: float) -> tuple[float, float]:
        """Return bounds of the largest difference, in 95 % of all sets."""
        away, reach = np.abs(self.difference), critical * self.error
        return float(max((away - reach).max(), 0.0)), float((away + reach).max())


@dataclass(frozen=True)
class Gap:
    """The largest difference of two groups."""

    value: float
    high: str  # the group of the larger figure
    low: str
    pairs: Pairs
    interval: tuple[float, float] | None = None  # 95 %, over the pairs of this label


@dataclass(frozen=True)
class Split:
    """Figures by group of one label: [group][figure], with 95 % intervals where they were asked for."""

    names: tuple[str, ...]  # of the groups that occur
    samples: np.ndarray  # [g]
    counted: np.ndarray  # [g] bool: of enough samples to count for a gap
    figures: list[dict[str, float]]
    intervals: list[dict[str, tuple[float, float]]]
    gaps: dict[str, Gap] = field(default_factory=dict)  # by figure; none where fewer than two groups count


def split(
    figures: Figures,
    columns: Mapping[str, Group],
    ids: np.ndarray,
    units: np.ndarray,
    *,
    rounds: int,
    support: int = SUPPORT,
    shares: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Split]:
    """Compute `figures` of the samples `ids` [n] for each group of each label.

    units [n]: what is drawn as a whole. shares: the figures that are shares of samples, in [0, 1]; of a few
    samples their errors are estimated with added ones (Agresti and Coull, The American Statistician 1998).
    """
    parts: dict[str, np.ndarray] = {}
    for label, group in columns.items():
        codes = np.asarray(group.codes)[ids]
        for code in range(len(group.names)):
            if len(rows := np.flatnonzero(codes == code)):
                parts[f"{label}/{code}"] = rows
    drawn = bootstrap.resampled(figures, parts, units, rounds=rounds, seed=seed)
    found = {}
    for label, group in columns.items():
        keys = [key for key in parts if key.rpartition("/")[0] == label]
        names = tuple(group.names[int(key.rpartition("/")[2])] for key in keys)
        found[label] = _split(
            [bootstrap.flat(figures, parts[key]) for key in keys],
            [drawn[key] for key in keys],
            [(len(parts[key]), len(np.unique(units[parts[key]]))) for key in keys],
            names,
            support=support,
            shares=shares,
        )
    return found


def _split(
    flat: list[dict[str, Measured]],
    drawn: list[dict[str, np.ndarray]],
    sizes: list[tuple[int, int]],
    names: tuple[str, ...],
    *,
    support: int,
    shares: Sequence[str],
) -> Split:
    samples = np.array([size for size, _ in sizes], np.int64)
    single = [name for name, each in flat[0].items() if len(each.values) == 1] if flat else []
    spread = [{name: bootstrap.percentiles(part[name][0]) for name in single if part} for part in drawn]
    gaps: dict[str, Gap] = {}
    for name in flat[0] if (samples >= support).sum() > 1 else ():
        values, counts = (
            np.stack([getattr(each[name], what)[:, 0] for each in flat]) for what in Measured._fields
        )
        resampled = np.stack([part[name] for part in drawn]) if drawn[0] else None
        counts = np.where(samples[:, None] >= support, counts, 0)
        pairs = _pairs(values, counts, resampled, sizes, support=support, share=name in shares)
        if len(pairs.difference):
            gaps[name] = _gap(pairs, names, share=name in shares)
    return Split(
        names,
        samples,
        samples >= support,
        [{name: float(each[name].values[0, 0]) for name in single} for each in flat],
        [{name: pair for name, pair in each.items() if pair is not None} for each in spread],
        gaps,
    )


def _gap(pairs: Pairs, names: Sequence[str], *, share: bool) -> Gap:
    place = int(np.abs(pairs.difference).argmax())
    ends = (int(pairs.first[place]), int(pairs.second[place]))
    high, low = ends if pairs.difference[place] >= 0 else ends[::-1]
    interval = None
    if len(pairs.worst):
        interval = pairs.bounds(pairs.critical())
        interval = (interval[0], min(interval[1], 1.0)) if share else interval
    return Gap(float(abs(pairs.difference[place])), names[high], names[low], pairs, interval)


def _pairs(
    values: np.ndarray,
    counts: np.ndarray,
    drawn: np.ndarray | None,
    sizes: list[tuple[int, int]],
    *,
    support: int,
    share: bool,
) -> Pairs:
    """Compare all groups with support; values, counts [g, m], drawn [g, m, rounds]."""
    first, second = np.triu_indices(len(values), 1)
    rounds = 0 if drawn is None else drawn.shape[2]
    worst, columns = np.zeros(rounds), []
    for member in range(values.shape[1]):
        value, count = values[:, member], counts[:, member]
        usable = np.isfinite(value) & (count >= support)
        if drawn is not None:
            usable &= 2 * np.isfinite(drawn[:, member]).sum(1) > rounds
        a, b = (ends[usable[first] & usable[second]] for ends in (first, second))
        error = np.full(len(a), np.nan)
        if drawn is not None and len(a):
            off = drawn[:, member] - value[:, None]
            off = np.where(np.isfinite(off), off, 0.0)
            apart = off[a] - off[b]
            plain = apart.std(1)
            scaled = np.divide(
                np.abs(apart), plain[:, None], out=np.zeros_like(apart), where=plain[:, None] > 0
            )
            worst = np.maximum(worst, scaled.max(0))
            # an image of a person counts as a part of one unit
            held = count * np.array([units / samples for samples, units in sizes])
            extra = _extra(off.var(1), value, held, share=share)
            error = np.sqrt(plain**2 + extra[a] + extra[b])
        columns.append((a, b, value[a] - value[b], error))
    first, second, difference, error = (np.concatenate(part) for part in zip(*columns, strict=True))
    return Pairs(first, second, difference, error, worst)


def _extra(variance: np.ndarray, value: np.ndarray, units: np.ndarray, *, share: bool) -> np.ndarray:
    """Return what the bootstrap's variance [g] of a figure of so many `units` lacks: it is too small for few.

    Ten right answers of ten have no variance at all.
    """
    free = np.maximum(units - 1, 1e-9)
    # Quantile of Student's t by that of the normal distribution (Abramowitz and Stegun, 26.7.5)
    wide = 1 + (TAIL**2 + 1) / (4 * free) + (5 * TAIL**4 + 16 * TAIL**2 + 3) / (96 * free**2)
    least = variance * np.maximum(units, 1) / free * wide**2
    if share:
        added = (value * units + TAIL**2 / 2) / (units + TAIL**2)
        least = np.maximum(least, added * (1 - added) / np.maximum(units, 1e-9))
    return np.maximum(least - variance, 0.0)


def lower_bound(splits: Mapping[str, Split], figure: str) -> tuple[float, str, Gap] | None:
    """Return the lower bound of the largest gap of `figure` over all labels, its label and its gap.

    It is too large in at most 5 % of all sets, however many labels and groups there are. None where no label
    has two groups that count, or without rounds.
    """
    gaps = {label: each.gaps[figure] for label, each in splits.items() if figure in each.gaps}
    if not gaps or not all(len(gap.pairs.worst) for gap in gaps.values()):
        return None
    head, *others = (gap.pairs for gap in gaps.values())
    critical = head.critical(*others)
    low = {label: gap.pairs.bounds(critical)[0] for label, gap in gaps.items()}
    label = max(low, key=lambda name: (low[name], gaps[name].value))
    return low[label], label, gaps[label]
