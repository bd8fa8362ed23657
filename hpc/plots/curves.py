"""Draws curves of shares: of how many samples the error is at most so large."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpc.plots.canvas import COLOURS, axes_of, plain, save

POINTS = 400


def draw_errors(path: Path, errors: Mapping[str, np.ndarray], *, title: str, unit: str) -> None:
    """Draw for each name the share of samples by their absolute error [n], as a PNG.

    The axis ends where 99 % of the samples of each name are.
    """
    figure, axes = axes_of(title)
    end = max((float(np.quantile(values, 0.99)) for values in errors.values() if len(values)), default=1.0)
    at = np.linspace(0, max(end, 1e-9), POINTS)
    for number, (name, values) in enumerate(errors.items()):
        share = np.searchsorted(np.sort(values), at, side="right") / max(len(values), 1)
        round_, place = divmod(number, len(COLOURS))
        dash, label = ("-", "--", ":")[round_ % 3], plain(f"{name} ({len(values):,})")
        axes.plot(at, share, color=COLOURS[place], linestyle=dash, linewidth=2, label=label)
    label = plain(f"absolute error ({unit})") if unit else "absolute error"
    axes.set(xlabel=label, ylabel="share of samples", xlim=(0, at[-1]), ylim=(0, 1.005))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
