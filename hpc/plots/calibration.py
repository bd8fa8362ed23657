"""Draws a reliability diagram: how often a prediction is right, by how sure the network is of it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpc.metrics.classification import reliability
from hpc.plots.canvas import COLOURS, axes_of, save


def draw_calibration(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str) -> None:
    """Draw a curve for each name -> (confidence [n] in [0, 1], right [n] bool), as a PNG."""
    figure, axes = axes_of(title)
    axes.plot((0, 1), (0, 1), color="black", linewidth=0.8, linestyle=":", label="perfectly calibrated")
    for (name, (confidence, right)), colour in zip(curves.items(), COLOURS, strict=False):
        bins = reliability(confidence, right)
        used = bins.weight > 0
        sizes = 12 + 120 * bins.weight[used] / bins.weight.sum()
        axes.plot(bins.confidence[used], bins.accuracy[used], color=colour, linewidth=1.5, label=name)
        axes.scatter(bins.confidence[used], bins.accuracy[used], s=sizes, color=colour)
    axes.set(
        xlabel="confidence of the predicted class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1)
    )
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
