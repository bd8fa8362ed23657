"""Draws images of an evaluation without a display: ROC curves and the histogram of scores."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpc.metrics import roc
from hpc.metrics.verification import SUPPORT
from hpc.plots.canvas import COLOURS, GENUINE, IMPOSTOR, axes_of, plain, save


def draw_roc(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str) -> None:
    """Draw a ROC for each name -> (scores [n], same [n] bool) as a PNG.

    The axis of false accepts is logarithmic and ends at ten impostor pairs.
    """
    figure, axes = axes_of(title)
    floor = 1.0
    for (name, (scores, same)), colour in zip(curves.items(), COLOURS, strict=False):
        curve = roc.rank(scores, same).roc()
        low = min(SUPPORT / curve.impostors, 0.5)
        floor = min(floor, low)
        at = np.geomspace(low, 1.0, 400)
        tar = curve.tar[np.searchsorted(curve.far, at * (1 + 1e-9), side="right") - 1]
        label = f"{plain(name)}: EER {roc.equal_error(curve)[0]:.3f}"
        axes.plot(at, tar, color=colour, linewidth=2, label=label)
    at = np.geomspace(floor, 1.0, 400)
    axes.plot(at, 1 - at, color="black", linewidth=0.8, linestyle=":", label="equal error")
    axes.set(xscale="log", xlim=(floor, 1), ylim=(0, 1.005))
    axes.set(xlabel="false accept rate (impostor pairs)", ylabel="true accept rate (genuine pairs)")
    axes.grid(alpha=0.25, which="major")
    axes.legend(loc="best", frameon=False, fontsize=9)
    save(figure, path)


def draw_scores(
    path: Path, scores: np.ndarray, same: np.ndarray, *, threshold: float, title: str, unit: str
) -> None:
    """Draw histograms of genuine and impostor `scores` [n], each of area 1, and the threshold, as a PNG.

    `unit`: what a score is, for the axis.
    """
    figure, axes = axes_of(title)
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, 81)
    for kind, mask, colour in (("impostor", ~same, IMPOSTOR), ("genuine", same, GENUINE)):
        label = f"{kind} ({int(mask.sum()):,} pairs)"
        heights, _ = np.histogram(scores[mask], edges, density=True)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.45, label=label)
        axes.stairs(heights, edges, color=colour, linewidth=1.2)
    axes.axvline(threshold, color="black", linewidth=1, linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel=f"score of a pair ({unit})", ylabel="density", xlim=(edges[0], edges[-1]))
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
