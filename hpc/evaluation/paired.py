"""How close are translated images to their partners? L1, SSIM, and for pictures of labels IoU and Dice.

The set holds pairs, as two halves `a` and `b` of an image; the task's `predict` is given the input as `image`
and answers {"image": [n, 3, h, w]} in [-1, 1]. With a palette the pixels of answer and target are read as its
nearest colours, which are then judged as classes; the first colour is the background, and left out of the
means. Figures: `hpc/metrics/paired.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch, pixels_of
from data_shards.errors import UserError
from data_shards.sources.paired import input_and_target
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.metrics import paired as metrics
from hpc.metrics.classification import confusion
from hpc.metrics.groups import Groups
from hpc.plots.heat import Cell, draw_sheet, enlarged

if TYPE_CHECKING:
    from hpc.task import Task

SHOWN = 8  # pairs in the picture
CELL = 128  # pixels
DIGITS = 4  # of the tables
Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # input, output, target: uint8 [h, w, 3]


class Paired(Evaluator):
    """Judges the task's prediction `output` by the image `target` of the batch.

    target: a | b, the half that is right (None = as the set's manifest states it). palette: RGB of the labels
    on 0 to 255, the background first (empty = the images are no labels).
    """

    def __init__(
        self,
        *,
        output: str = IMAGE,
        target: str | None = None,
        palette: Sequence[Sequence[int]] = (),
        names: Sequence[str] = (),
    ) -> None:
        self.output, self.target = output, target
        self.palette = np.asarray(palette, np.float64).reshape(-1, 3)
        self.names = list(names) or [", ".join(map(str, colour)) for colour in palette]
        self._counts = torch.zeros(len(self.palette), len(self.palette), dtype=torch.float64)
        empty = {"ids": np.zeros(0, np.int64), "l1": np.zeros(0), "ssim": np.zeros(0)}
        self._parts: list[dict[str, np.ndarray]] = [empty]
        self._shown: list[Triple] = []  # of the first ids, on rank 0

    def begin(self, judged: JudgedSet) -> None:
        if self.target is None:
            _, self.target = input_and_target(judged.shards.manifest)

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        given, wanted = self._pair(batch)
        asked = batch if IMAGE in batch.images else replace(batch, images={**batch.images, IMAGE: given})
        predicted = task.predict(nets, asked)[self.output]
        finite = predicted.flatten(1).isfinite().all(1)
        found, truth = pixels_of(predicted), pixels_of(wanted)
        known = finite.cpu().numpy()
        ids = batch.ids[:, 0].numpy()
        fits = min(truth.shape[1:3]) >= metrics.WINDOW
        part = {
            "ids": ids,
            "l1": np.where(known, metrics.l1(found, truth), np.nan),
            "ssim": metrics.ssim(found, truth) if fits else np.full(len(ids), np.nan),
        }
        self._parts.append(part)
        if len(self.palette):
            right, read = (metrics.nearest_colours(each, self.palette).ravel() for each in (truth, found))
            self._counts += torch.from_numpy(confusion(right, read, len(self.palette)))
        for row in np.flatnonzero(ids < SHOWN):
            self._shown.append((pixels_of(given[row : row + 1])[0], found[row], truth[row]))

    def _pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the input and the target of a batch. UserError where it does not hold them."""
        assert self.target is not None
        given = {"a": "b", "b": "a"}[self.target]
        missing = [name for name in (given, self.target) if name not in batch.images]
        if missing:
            held = " and ".join(batch.images) or "none"
            raise UserError(
                f"the images of the judged set are {held}, not {missing[0]}: judge a set that was packed by "
                "source=paired, by a run of data.halves=true"
            )
        return batch.images[given], batch.images[self.target]

    def sums(self) -> dict[str, Tensor]:
        return {"counts": self._counts} if len(self.palette) else {}

    def rows(self) -> Rows:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, gaps, alike = (np.asarray(rows[name]) for name in ("ids", "l1", "ssim"))
        check_finite(self.output, gaps)
        report = Report({"l1": float(gaps.mean())})
        if np.isfinite(alike).all():
            report.scalars["ssim"] = float(alike.mean())
        report.rows = {"ids": ids, "l1": gaps, "ssim": alike}
        cells = [[name, round(value, DIGITS)] for name, value in report.scalars.items()]
        note = (
            f"{len(ids):,} pairs; l1 as a share of the range, ssim: means over windows, channels and images"
        )
        report.tables["images"] = Table(("figure", "mean"), cells, note)
        if sums:
            self._add_overlaps(report, sums["counts"].numpy())
        if self._shown:
            report.figures["pairs.png"] = self._draw
        return report

    def _add_overlaps(self, report: Report, counts: np.ndarray) -> None:
        iou, dice = metrics.overlap(counts)
        judged = np.isfinite(iou[1:])
        if judged.any():
            report.scalars |= {
                "iou": float(iou[1:][judged].mean()),
                "dice": float(dice[1:][judged].mean()),
            }
        rows = [
            [
                name,
                *(None if np.isnan(each) else round(float(each), DIGITS) for each in (one, two)),
                int(pixels),
            ]
            for name, one, two, pixels in zip(self.names, iou, dice, counts.sum(1), strict=True)
        ]
        note = f"the means leave out the background, {self.names[0]}; pixels are read as the nearest colour"
        report.tables["overlap"] = Table(("class", "iou", "dice", "pixels"), rows, note)

    def _draw(self, path: Path) -> None:
        cells = [Cell(np.hstack([enlarged(image, CELL) for image in three]), []) for three in self._shown]
        draw_sheet(path, cells, title="input, output, target", columns=2)
