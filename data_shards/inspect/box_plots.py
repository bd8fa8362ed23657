"""Histograms of a set's boxes: their size, their aspect, and how many an image has."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from data_shards.shard_format.shard_set import ShardSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 40


def box_sides(shards: ShardSet, name: str) -> dict[str, np.ndarray]:
    """{side: square root of the area in pixels, aspect: width / height, each [m]; count: boxes [n] an image}.

    Of the ragged boxes `name`; those without area are left out of side and aspect.
    """
    rows = np.asarray(shards.ragged[name].rows, np.float64)
    sides = rows[:, 2:][(rows[:, 2:] > 0).all(axis=1)]
    return {
        "side": np.sqrt(sides.prod(axis=1)),
        "aspect": sides[:, 0] / sides[:, 1],
        "count": np.diff(np.asarray(shards.ragged[name].start).astype(np.int64)),
    }


def box_lists(shards: ShardSet) -> list[str]:
    """The ragged fields of boxes of a set that have any."""
    fields = shards.schema.ragged.items()
    return [name for name, field in fields if field.kind == "boxes" and len(shards.ragged[name].rows)]


def plot_boxes(shards: ShardSet, name: str) -> np.ndarray:
    """Draw the three histograms of the boxes `name`: uint8 [h, w, 3] RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = box_sides(shards, name)
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(
        f"{shards.name}, {shards.manifest['split']}: {len(values['side'])} {name} in {len(shards)} images"
    )
    size, aspect, count = figure.subplots(1, 3)
    _log_histogram(size, values["side"], "side of a box in pixels (root of its area)")
    _log_histogram(aspect, values["aspect"], "width / height")
    most = int(values["count"].max())
    edges = np.arange(most + 2) - 0.5 if most < _BINS else np.linspace(-0.5, most + 0.5, _BINS)
    count.hist(values["count"], bins=edges.tolist(), color="tab:blue")
    count.set(xlabel=f"boxes an image ({int((values['count'] == 0).sum())} have none)", ylabel="images")
    count.set_yscale("log" if most >= _BINS else "linear")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _log_histogram(axes: "Axes", values: np.ndarray, label: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = values.min(), max(values.max(), values.min() * 1.01)
    axes.hist(values, bins=np.geomspace(low, high, _BINS).tolist(), color="tab:blue")
    axes.axvline(float(np.median(values)), color="tab:red", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=f"{label}: median {np.median(values):.3g}", ylabel="boxes")


def facts_of(values: Mapping[str, np.ndarray]) -> str:
    """What the histograms show, on a line."""
    side, aspect = values["side"], values["aspect"]
    spread = [np.percentile(each, (5, 50, 95)).round(2).tolist() for each in (side, aspect)]
    return (
        "side {:g}, {:g}, {:g} pixels (5 %, median, 95 %), aspect {:g}, {:g}, {:g}".format(
            *spread[0], *spread[1]
        )
        + f", {int((values['count'] == 0).sum())} images without any"
    )
