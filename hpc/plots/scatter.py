"""Draws predicted numbers over the true ones."""

from pathlib import Path

import numpy as np

from hpc.plots.canvas import COLOURS, axes_of, plain, save

MOST = 20_000  # points that are drawn


def draw_scatter(path: Path, truth: np.ndarray, predicted: np.ndarray, *, title: str, unit: str) -> None:
    """Draw `predicted` [n] over `truth` [n] as a PNG, with the line where both are equal."""
    figure, axes = axes_of(title, size=(5.6, 5.2))
    step = -(-max(len(truth), 1) // MOST)
    truth, predicted = truth[::step], predicted[::step]
    alpha = float(np.clip(300 / max(len(truth), 1), 0.05, 0.7))
    axes.scatter(truth, predicted, s=9, color=COLOURS[0], alpha=alpha, linewidths=0, rasterized=True)
    ends = np.concatenate([truth, predicted]) if len(truth) else np.array([0.0, 1.0])
    low, high = float(ends.min()), float(ends.max())
    axes.plot((low, high), (low, high), color="black", linewidth=0.8, linestyle=":", label="predicted = true")
    named = f" ({unit})" if unit else ""
    axes.set(xlabel=plain(f"true{named}"), ylabel=plain(f"predicted{named}"))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
