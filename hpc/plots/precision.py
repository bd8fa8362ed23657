"""Draws precision over recall, and F1 over the score from which detections count."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from hpc.metrics.average_precision import Curve
from hpc.plots.canvas import COLOURS, plain, save


def draw_precision(path: Path, curves: Mapping[str, Curve], *, title: str) -> None:
    """Draw both curves of each name as a PNG; a dot marks the largest F1."""
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    figure.suptitle(plain(title), fontsize=10)
    left, right = figure.subplots(1, 2)
    for number, (name, curve) in enumerate(curves.items()):
        colour, best = COLOURS[number % len(COLOURS)], curve.best if len(curve.scores) else None
        left.plot(curve.recall, curve.precision, color=colour, linewidth=2, label=plain(name))
        f1 = curve.f1
        label = plain(name) if best is None else f"{plain(name)}: {f1[best]:.3f} at {curve.scores[best]:.3f}"
        right.plot(curve.scores, f1, color=colour, linewidth=2, label=label)
        if best is not None:
            left.plot(curve.recall[best], curve.precision[best], "o", color=colour)
            right.plot(curve.scores[best], f1[best], "o", color=colour)
    left.set(xlabel="recall", ylabel="precision")
    right.set(xlabel="detections of at least this score", ylabel="F1")
    for axes in (left, right):
        axes.set(xlim=(0, 1), ylim=(0, 1.005))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    save(figure, path)
