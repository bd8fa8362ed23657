"""The part of a report that splits figures by groups of people: tables, gaps, intervals, a picture, the gate.

Each label splits alone, and together with each other one. How the gaps are bounded: `hpc/metrics/gaps.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.errors import UserError
from hpc.evaluation.base import Evaluator, Report, Table
from hpc.evaluation.keys import MAX_GAP
from hpc.metrics.bootstrap import Figures, intervals
from hpc.metrics.decisions import ODDS, PARITY
from hpc.metrics.gaps import Gap, Split, lower_bound, split
from hpc.metrics.groups import AND, PEOPLE, Groups
from hpc.plots import bars

ROUNDS = 100  # of bootstrapping that a gate needs
FAIRNESS = {ODDS: "equalized odds difference", PARITY: "demographic parity difference"}
MOST = 40  # pairs of groups that are listed
LONG = 24  # rows: a longer table is on the page only


@dataclass(frozen=True)
class Shown:
    """Which figures are shown by group. The first one is held to the gate."""

    names: Sequence[str]
    shares: Sequence[str]  # those that are shares of samples
    worst: Callable[..., Any] = min  # of the first figure: min, or max of errors


def add_groups(
    report: Report,
    each: Evaluator,
    figures: Figures,
    ids: np.ndarray,
    groups: Groups,
    rounds: int,
    shown: Shown,
) -> None:
    """Add `figures` of the samples `ids` [n] for each group, their gaps and intervals, to `report`.

    Scalars: `<figure>_gap_<label>`. Raises UserError for a gate without rounds.
    """
    limit, support = float(each.word(MAX_GAP)), int(each.word("support"))
    if limit and rounds < ROUNDS:
        raise UserError(
            f"{MAX_GAP}={limit:g} is held to the lower bound of the gap: use bootstrap={ROUNDS} or more"
        )
    units = groups.units_of(ids)
    spread = intervals(figures, units, rounds=rounds)
    report.intervals |= {name: pair for name, pair in spread.items() if name in shown.names}
    splits = split(
        figures,
        groups.crossed().columns,
        ids,
        units,
        rounds=rounds,
        support=support,
        shares=(*shown.shares, *FAIRNESS),
    )
    splits = {label: parts for label, parts in splits.items() if parts.names}
    bound = lower_bound(splits, shown.names[0])
    if splits:
        report.tables["bias"] = _summary(splits, shown, support, bound)
    for label, parts in splits.items():
        report.tables[f"by {label}"] = _table(label, parts, shown, support)
        if (gap := parts.gaps.get(shown.names[0])) and len(parts.names) > 2:
            report.tables[f"differences by {label}"] = _differences(label, parts, gap, shown.names[0])
        _add_scalars(report, label, parts)
    if bound:
        report.scalars[f"{shown.names[0]}_gap_at_least"] = bound[0]
    alone = sorted((label for label in splits if AND not in label), key=lambda label: label not in PEOPLE)
    if alone:
        name = shown.names[0]
        drawn = {
            label: (splits[label].names, *_bars(splits[label], name), splits[label].counted)
            for label in alone
        }
        report.figures["groups.png"] = lambda path: bars.draw_groups(
            path, drawn, title=f"{name} by group: {path.parent.name}", figure=name
        )
    if limit:
        report.gate = _gate(limit, shown.names[0], bound, support)


def _gate(limit: float, name: str, bound: tuple[float, str, Gap] | None, support: int) -> str:
    """Return why the gap does not pass; empty where it does."""
    if bound is None:
        return f"{MAX_GAP}={limit:g}: no label has two groups of {support} samples to compare: leave it out"
    low, label, gap = bound
    if low <= limit:
        return ""
    return (
        f"{name} differs by {gap.value:.4g} between {gap.high} and {gap.low} ({label}), and by at least "
        f"{low:.4g} in 95 % of such sets: {MAX_GAP}={limit:g}"
    )


def _add_scalars(report: Report, label: str, parts: Split) -> None:
    where = label.replace(AND, "_x_")
    for name, gap in parts.gaps.items():
        scalar = f"{name}_difference_{where}" if name in FAIRNESS else f"{name}_gap_{where}"
        report.scalars[scalar] = gap.value
        if gap.interval:
            report.intervals[scalar] = gap.interval


def _summary(
    splits: Mapping[str, Split], shown: Shown, support: int, bound: tuple[float, str, Gap] | None
) -> Table:
    """Return a row a label: the worst group, the largest gap, and what fairness is measured by."""
    name = shown.names[0]
    fair = [each for each in FAIRNESS if any(each in parts.gaps for parts in splits.values())]
    cells: list[list[Any]] = []
    for label, parts in splits.items():
        known = [
            (values[name], group)
            for group, values, counted in zip(parts.names, parts.figures, parts.counted, strict=True)
            if counted and np.isfinite(values[name])
        ]
        worst = shown.worst(known) if known else None
        gap = parts.gaps.get(name)
        cells.append(
            [
                label,
                f"{int(parts.counted.sum())} of {len(parts.names)}",
                f"{worst[1]}: {worst[0]:.4g}" if worst else "-",
                _gap_text(gap),
                f"{gap.high} - {gap.low}" if gap else "-",
                *(_gap_text(parts.gaps.get(each)) for each in fair),
            ]
        )
    note = f"of groups of {support} samples or more; intervals hold for all pairs of groups of a label"
    if bound:
        note += f"; over all labels the largest gap is at least {bound[0]:.4g} ({bound[1]})"
    columns = (
        "split by",
        "groups",
        f"worst {name}",
        f"gap of {name}",
        "between",
        *(FAIRNESS[each] for each in fair),
    )
    return Table(columns, cells, note)


def _gap_text(gap: Gap | None) -> str:
    return "-" if gap is None else figure({"": gap.value}, {"": gap.interval} if gap.interval else {}, "")


def _table(label: str, parts: Split, shown: Shown, support: int) -> Table:
    cells: list[list[Any]] = [
        [name, int(count), *(figure(values, spread, key) for key in shown.names)]
        for name, count, values, spread in zip(
            parts.names, parts.samples.tolist(), parts.figures, parts.intervals, strict=True
        )
    ]
    if not parts.gaps:
        note = f"no gap: fewer than two groups have {support} samples"
    else:
        note = f"gap: largest less smallest, of groups of {support} samples or more"
        cells.append(["gap", "", *(_gap_text(parts.gaps.get(key)) for key in shown.names)])
    return Table((label, "samples", *shown.names), cells, note, long=AND in label or len(cells) > LONG)


def _differences(label: str, parts: Split, gap: Gap, name: str) -> Table:
    """Return the pairs of groups, those of the largest difference first."""
    pairs = gap.pairs
    order = np.argsort(-np.abs(pairs.difference), kind="stable")[:MOST]
    critical = pairs.critical()
    cells = []
    for place in order:
        value, reach = pairs.difference[place], critical * pairs.error[place]
        one, other = (parts.names[ends[place]] for ends in (pairs.first, pairs.second))
        interval = {"": (value - reach, value + reach)} if np.isfinite(reach) else {}
        cells.append([f"{one} - {other}", figure({"": value}, interval, "")])
    note = f"of {name}; the intervals hold for all {len(pairs.difference)} pairs at once"
    return Table((label, "difference"), cells, note, long=True)


def _bars(parts: Split, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the figures [g] of the groups, and their intervals [g, 2]."""
    values = np.array([each[name] for each in parts.figures])
    ends = [each.get(name, (value, value)) for each, value in zip(parts.intervals, values, strict=True)]
    return values, np.array(ends)


def figure(values: Mapping[str, float], spread: Mapping[str, tuple[float, float]], key: str) -> str:
    """Write a figure with its interval, `-` where it is not defined."""
    value = values.get(key, np.nan)
    if not np.isfinite(value):
        return "-"
    interval = spread.get(key)
    return f"{value:.4g}" + (f" [{interval[0]:.4g} {interval[1]:.4g}]" if interval else "")
