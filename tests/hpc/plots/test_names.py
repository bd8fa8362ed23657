"""Names that others chose (folders, classes, runs) are drawn letter by letter, and sets may be empty."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from hpc.plots.calibration import draw_calibration
from hpc.plots.confusion import draw_confusion
from hpc.plots.curves import draw_errors
from hpc.plots.roc import draw_roc, draw_scores


def draw(name: str, folder: Path, scores: np.ndarray) -> None:
    same, title = np.arange(len(scores)) % 2 == 0, f"of {name}"
    draw_confusion(folder / "a.png", np.eye(3), [name, "b", "c"], title=title)
    draw_errors(folder / "b.png", {name: scores}, title=title, unit=name)
    draw_calibration(folder / "c.png", {"uncalibrated": (scores, same)}, title=title)
    if len(scores):
        draw_roc(folder / "d.png", {name: (scores, same)}, title=title)
        draw_scores(folder / "e.png", scores, same, threshold=0.5, title=title, unit="cosine")


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        (r"$\nothing$", np.linspace(0, 1, 6)),
        (r"a\$b$c$ and 喜び", np.full(6, 0.5)),
        ("", np.zeros(0)),
    ],
)
def test_any_name_is_drawn_without_error_or_warning(name, scores, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(name, tmp_path, scores)
    pictures = [path.read_bytes() for path in tmp_path.glob("*.png")]
    assert len(pictures) == (5 if len(scores) else 3)
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
