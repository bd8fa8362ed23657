"""Draws a confusion matrix: rows are the true classes, columns the predicted ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc.plots.canvas import axes_of, plain, save

MOST = 30  # classes whose cells hold numbers and names


def draw_confusion(path: Path, counts: np.ndarray, names: Sequence[str], *, title: str) -> None:
    """Draw `counts` [k, k] as a PNG. A cell's colour is its share of its row, its text is the count."""
    num = len(counts)
    side = min(4.0 + 0.35 * num, 12.0)
    figure, axes = axes_of(title, size=(side + 1, side))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if num <= MOST:
        axes.set_xticks(range(num), [_short(name) for name in names], rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(num), [_short(name) for name in names], fontsize=8)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize=7)
    axes.set(xlabel="predicted", ylabel="true")
    save(figure, path)


def _short(name: str) -> str:
    return plain(name if len(name) <= 24 else f"{name[:23]}…")
