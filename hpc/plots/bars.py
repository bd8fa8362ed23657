"""Draws a figure by group of people: a bar a group with its interval, label below label."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hpc.plots.canvas import COLOURS, axes_of, plain, save

MOST = 40  # bars
Part = tuple[Sequence[str], np.ndarray, np.ndarray, np.ndarray]  # names, values [g], ends [g, 2], counted [g]


def draw_groups(path: Path, parts: Mapping[str, Part], *, title: str, figure: str) -> None:
    """Draw `figure` of the groups of each label as a PNG; groups that do not count for a gap are grey.

    Labels that do not fit into MOST bars are left out, the last ones first.
    """
    names: list[str] = []
    places: list[float] = []
    bars: list[tuple[float, float, float, bool]] = []
    for label, (groups, values, ends, counted) in parts.items():
        if names and len(names) + len(groups) > MOST:
            break
        start = places[-1] + 1.6 if places else 0.0
        places += [start + number for number in range(len(groups))]
        names += [plain(f"{label}: {name}" if not number else name) for number, name in enumerate(groups)]
        bars += zip(values.tolist(), *ends.T.tolist(), counted.tolist(), strict=True)
    value, low, high, counted = (np.array(column) for column in zip(*bars, strict=True))
    drawn, axes = axes_of(title, size=(7.0, 1.3 + 0.24 * places[-1] + 0.24))
    seen = np.nan_to_num(value)
    axes.barh(places, seen, color=np.where(counted, COLOURS[0], COLOURS[2]), alpha=0.75, height=0.75)
    away = np.abs(np.nan_to_num(np.stack([seen - low, high - seen])))
    axes.errorbar(seen, places, xerr=away, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.grid(alpha=0.25, axis="x")
    axes.set_xlabel(f"{figure}, with 95 % intervals (grey: too few samples to count)")
    save(drawn, path)
