"""The part of a report that splits figures by groups of people: tables, gaps, intervals, and the gate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpc.evaluation.base import Report, Table
from hpc.metrics.groups import SUPPORT, Figures, Groups, intervals, split


def add_groups(
    report: Report,
    figures: Figures,
    ids: np.ndarray,
    groups: Groups,
    *,
    shown: Sequence[str],
    rounds: int,
    gate: float = 0.0,
) -> None:
    """Add `figures` of the samples `ids` [n] for each group, their gaps and intervals, to `report`.

    shown: the figures of the tables; the first one is held to the gate: the largest gap (0 = none) beyond
    which the report does not pass. Scalars: `<figure>_gap_<label>`.
    """
    units, held = groups.units_of(ids), False

    def some(weight: np.ndarray) -> dict[str, float]:
        found = figures(weight)
        return {name: found[name] for name in shown}

    report.intervals |= intervals(some, units, rounds=rounds)
    for label, group in groups.columns.items():
        parts = split(some, group, ids, units, rounds=rounds)
        cells: list[list[Any]] = [
            [name, int(count), *(figure(values, spread, key) for key in shown)]
            for name, count, values, spread in zip(
                parts.names, parts.samples.tolist(), parts.figures, parts.intervals, strict=True
            )
        ]
        if not parts.gaps:
            note = f"no gap: fewer than two groups have {SUPPORT} samples"
        else:
            note = f"gap: largest less smallest, of groups of {SUPPORT} samples or more"
            cells.append(["gap", "", *(figure(parts.gaps, parts.gap_intervals, key) for key in shown)])
        report.tables[f"by {label}"] = Table((label, "samples", *shown), cells, note)
        report.scalars |= {f"{key}_gap_{label}": gap for key, gap in parts.gaps.items() if np.isfinite(gap)}
        report.intervals |= {f"{key}_gap_{label}": each for key, each in parts.gap_intervals.items()}
        held |= bool(np.isfinite(parts.gaps.get(shown[0], np.nan)))
        if gate and parts.gaps.get(shown[0], 0.0) > gate:
            report.gate += f"{shown[0]} differs by {parts.gaps[shown[0]]:.4g} over {label}, gate={gate:g}. "
    if gate and not held:
        report.gate += (
            f"gate={gate:g}: no label has two groups of {SUPPORT} samples to compare: leave it out "
        )


def figure(values: Mapping[str, float], spread: Mapping[str, tuple[float, float]], key: str) -> str:
    """Write a figure with its interval, `-` where it is not defined."""
    value = values.get(key, np.nan)
    if not np.isfinite(value):
        return "-"
    interval = spread.get(key)
    return f"{value:.4g}" + (f" [{interval[0]:.4g} {interval[1]:.4g}]" if interval else "")
