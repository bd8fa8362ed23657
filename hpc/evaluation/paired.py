"""How close are translated images to their partners? L1, SSIM, and for pictures of labels IoU and Dice.

The task's `predict` gives {"image": [n, 3, h, w]} in [-1, 1] for a batch that holds the target too, as one of
two halves. With a palette the pixels of both are read as its nearest colours, which are then judged as
classes; the first colour is the background, and left out of the means. Figures: `hpc/metrics/paired.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, PAIR, Batch
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
        assert self.target is not None
        predicted, wanted = task.predict(nets, batch)[self.output], batch.images[self.target]
        finite = predicted.flatten(1).isfinite().all(1)
        found, truth = _pixels(predicted), _pixels(wanted)
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
        other = batch.images[next((name for name in PAIR if name != self.target), self.target)]
        for row in np.flatnonzero(ids < SHOWN):
            self._shown.append((_pixels(other[row : row + 1])[0], found[row], truth[row]))

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
        cells = [[name, value] for name, value in report.scalars.items()]
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
            [name, None if np.isnan(one) else float(one), None if np.isnan(two) else float(two), int(pixels)]
            for name, one, two, pixels in zip(self.names, iou, dice, counts.sum(1), strict=True)
        ]
        note = f"the means leave out the background, {self.names[0]}; pixels are read as the nearest colour"
        report.tables["overlap"] = Table(("class", "iou", "dice", "pixels"), rows, note)

    def _draw(self, path: Path) -> None:
        cells = [Cell(np.hstack([enlarged(image, CELL) for image in three]), []) for three in self._shown]
        draw_sheet(path, cells, title="input, output, target", columns=2)


def _pixels(images: Tensor) -> np.ndarray:
    """Return images [n, 3, h, w] in [-1, 1] as uint8 [n, h, w, 3]."""
    scaled = (images.float().nan_to_num() + 1.0) * 127.5
    return scaled.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
