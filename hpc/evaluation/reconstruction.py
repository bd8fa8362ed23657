"""How close are images to what an autoencoder makes of them? L1 and SSIM, also by group of people.

The task's `predict` gives {"image": [n, 3, h, w]} in [-1, 1] for a batch of images. Figures of a pair:
`hpc/metrics/paired.py`; intervals and groups: `by_group.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch, pixels_of
from hpc.evaluation import keys
from hpc.evaluation.base import Evaluator, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import Shown, add_groups, figure
from hpc.metrics import paired as metrics
from hpc.metrics.bootstrap import Measured, mean
from hpc.metrics.groups import Groups
from hpc.plots.heat import Cell, draw_sheet, enlarged

if TYPE_CHECKING:
    from hpc.task import Task

FIGURES = ("ssim", "l1")
SHOWN = 16  # images in the picture, the first ones of the set
COLUMNS = 8
CELL = 96  # pixels


class Reconstruction(Evaluator):
    """Judges the task's prediction `output` by the images that it was given, of 11 pixels or more."""

    KEYS = keys.BY_GROUP
    headline = FIGURES
    share = False

    def __init__(self, *, output: str = IMAGE) -> None:
        self.output = output
        empty = {"ids": np.zeros(0, np.int64), "ssim": np.zeros(0), "l1": np.zeros(0)}
        self._parts: list[dict[str, np.ndarray]] = [empty]
        self._shown: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by id, on rank 0

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        made = task.predict(nets, batch)[self.output]
        known = made.flatten(1).isfinite().all(1).cpu().numpy()
        found, truth = pixels_of(made), pixels_of(batch.images[IMAGE])
        ids = batch.ids[:, 0].numpy()
        part = {name: getattr(metrics, name)(found, truth) for name in FIGURES}
        self._parts.append({"ids": ids} | {name: np.where(known, part[name], np.nan) for name in FIGURES})
        for row in np.flatnonzero(ids < SHOWN):
            self._shown[int(ids[row])] = truth[row], found[row]

    def rows(self) -> Rows:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        columns = {name: np.asarray(rows[name]) for name in ("ids", *FIGURES)}
        check_finite(self.output, columns["l1"])

        def figures(these: np.ndarray, weight: np.ndarray) -> dict[str, Measured]:
            return {name: mean(columns[name][these], weight) for name in FIGURES}

        report = Report({name: float(columns[name].mean()) for name in FIGURES})
        report.rows = columns
        add_groups(report, self, figures, columns["ids"], groups, rounds, Shown(FIGURES, ()))
        cells = [[name, figure(report.scalars, report.intervals, name)] for name in FIGURES]
        note = (
            f"{len(columns['ids']):,} images and what was made of them; ssim: means over windows, channels "
            "and images; l1: a share of the range"
        )
        report.tables = {"images": Table(("figure", "mean"), cells, note)} | report.tables
        if self._shown:
            report.figures = {"reconstructions.png": self._draw} | report.figures
        return report

    def _draw(self, path: Path) -> None:
        cells = [
            Cell(np.vstack([enlarged(image, CELL) for image in self._shown[number]]), [])
            for number in sorted(self._shown)
        ]
        draw_sheet(path, cells, title="images, and below each what was made of it", columns=COLUMNS)
