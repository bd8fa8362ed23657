"""What all pictures share: axes, colours, and writing a PNG without a display."""

import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito's palette, distinct in every common kind of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#999999", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GENUINE, IMPOSTOR = "#0072B2", "#D55E00"


def plain(text: str) -> str:
    """Return `text` so that matplotlib draws it letter by letter: `$` in a name would begin a formula."""
    return text.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, in one step."""
    temporary = path.with_name(f".tmp-{path.name}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is drawn as a box
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=130)
    temporary.replace(path)


def axes_of(title: str, *, size: tuple[float, float] = (6.4, 4.8)) -> tuple[Figure, Axes]:
    """Return a figure of `size` inches with one pair of axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(plain(title), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
