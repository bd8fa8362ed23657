"""Does a mask cover what it should? Overlap, pixels and boundaries of a field of kind `mask`.

A task predicts the probabilities of k classes for each pixel, [n, k, h, w]. They are judged at the picture's
own size where the set is there: brought back by the place that the picture has in the network's view, and
compared with the stored mask. Figures: `hpc/metrics/segmentation.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch, pixels_of
from data_shards.errors import UserError
from data_shards.images.masks import UNKNOWN, read_mask
from data_shards.loading.reader import Reader
from data_shards.ragged import Ragged
from hpc.evaluation import keys
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import Shown, add_groups, figure
from hpc.evaluation.keys import Key
from hpc.evaluation.logits import finite, number, single
from hpc.metrics import bootstrap
from hpc.metrics import segmentation as metrics
from hpc.metrics.groups import Groups
from hpc.plots.heat import Cell, draw_sheet
from hpc.plots.masks import overlay

if TYPE_CHECKING:
    from hpc.task import Task

SHOWN = ("iou", "iou_picture", "dice", "accuracy", "boundary_f")
WORST = 12  # pictures of the sheet
CELL = 176  # pixels of its cells


class Segmented(Evaluator):
    """Judges the output `field`, probabilities [n, k, h, w], by the mask of that name.

    names: of the classes, the background first (empty = those of the judged set)
    """

    KEYS: ClassVar[Mapping[str, Key]] = keys.SEGMENTED
    headline = SHOWN

    def __init__(self, field: str, *, names: tuple[str, ...] = ()) -> None:
        self.field, self.names = field, names
        self._shards: Any = None
        self._reader: Reader | None = None
        self._parts: list[dict[str, np.ndarray]] = []
        self._worst: list[tuple[float, int, np.ndarray]] = []  # IoU, id and cell of this rank's worst

    def begin(self, judged: JudgedSet) -> None:
        fields = getattr(getattr(judged.shards, "schema", None), "fields", {})
        if self.field in fields:
            self._shards, self.names = judged.shards, self.names or tuple(fields[self.field].names)
            if self.field in getattr(judged.shards, "pieces", {}):
                self._reader = Reader(judged.shards)

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        chances = task.predict(nets, batch)[self.field].float()
        good = chances.flatten(1).isfinite().all(1).cpu().numpy()
        values, ids = chances.cpu().numpy(), batch.ids[:, 0].numpy()
        pictures = pixels_of(batch.images[IMAGE])
        masks = batch.images[self.field][:, 0].cpu().numpy()
        stored = self._stored(ids)
        classes = values.shape[1]
        counts = np.zeros((len(ids), classes, classes), np.int64)
        edges = np.zeros((len(ids), classes - 1, 4), np.int64)
        for row, sample in enumerate(ids.tolist()):
            if stored is not None and batch.placed is not None:
                size = tuple(batch.placed.source[row].tolist())
                found = metrics.at_own_size(values[row], size, batch.placed.window(row))
                truth = np.full(found.shape, UNKNOWN, np.uint8)
                if stored[row]:
                    truth = metrics.of_size(read_mask(stored[row]), size)
            else:
                found, truth = values[row].argmax(0).astype(np.uint8), masks[row]
            self._check_classes(truth, classes)
            counts[row] = metrics.pixel_counts(truth, found, classes)
            edges[row] = metrics.boundaries(truth, found, classes)
            self._keep_worst(counts[row], sample, pictures[row], masks[row], values[row].argmax(0))
        self._parts.append({"ids": ids, "counts": counts, "edges": edges, "good": good})

    def _stored(self, ids: np.ndarray) -> list[bytes] | None:
        """Return the masks of these samples as they are stored; None where the set is not there."""
        return None if self._reader is None else self._reader.read(ids, self.field)

    def _check_classes(self, truth: np.ndarray, classes: int) -> None:
        known = truth[truth != UNKNOWN]
        if known.size and known.max() >= classes:
            raise UserError(
                f"{self.field} has {classes} classes, a mask of the judged set holds number "
                f"{int(known.max())}: judge a set with the classes of the training"
            )

    def _keep_worst(
        self, counts: np.ndarray, sample: int, picture: np.ndarray, truth: np.ndarray, found: np.ndarray
    ) -> None:
        if not counts[1:].any() and not counts[:, 1:].any():  # nothing to find, and nothing found
            return
        one = metrics.SegmentFigures(counts[None], np.zeros((1, len(counts) - 1, 4), np.int64))
        worst = float(np.nan_to_num(one.by_picture()["iou"][0]))
        if len(self._worst) == WORST and (worst, sample) >= self._worst[-1][:2]:
            return
        sides = [picture, overlay(picture, truth), overlay(picture, found.astype(np.uint8))]
        cell = np.hstack([cv2.resize(side, (CELL, CELL), interpolation=cv2.INTER_AREA) for side in sides])
        self._worst = sorted([*self._worst, (worst, sample, cell)], key=lambda each: each[:2])[:WORST]

    def rows(self) -> Rows:
        classes = max(len(self.names), 2)
        empty = {
            "ids": np.zeros(0, np.int64),
            "counts": np.zeros((0, classes, classes), np.int64),
            "edges": np.zeros((0, classes - 1, 4), np.int64),
            "good": np.zeros(0, bool),
        }
        parts = self._parts or [empty]
        rows: Rows = {name: np.concatenate([part[name] for part in parts]) for name in empty}
        cells, ids = {each[1]: each[2] for each in self._worst}, np.asarray(rows["ids"]).tolist()
        shown = [cells[sample][None] if sample in cells else _no_cell() for sample in ids]
        rows["cells"] = Ragged.of_lists([torch.from_numpy(each) for each in shown or [_no_cell()]])[
            : len(ids)
        ]
        return rows

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the share of the picture that each class but the background covers."""
        found = np.asarray(prediction[self.field])
        mask = found.argmax(0) if found.ndim == 3 else found
        return {
            f"{name}_share": float((mask == place).mean()) for place, name in enumerate(self.names) if place
        }

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        good = np.asarray(rows["good"])
        check_finite(self.field, np.where(good, 0.0, np.nan))
        ids, counts, edges = (np.asarray(rows[name]) for name in ("ids", "counts", "edges"))
        judged = counts.sum((1, 2)) > 0
        without, cells = int((~judged).sum()), rows["cells"]
        each = metrics.SegmentFigures(counts[judged], edges[judged])
        found = single(bootstrap.flat(each, np.arange(int(judged.sum()))))
        found["empty"] = float(each.empty.sum())
        report = Report(finite(found))
        by_picture = each.by_picture()
        report.rows = {"ids": ids[judged], **by_picture, "empty": each.empty.astype(np.int64)}
        add_groups(report, self, each, ids[judged], groups, rounds, Shown(SHOWN, shares=()))
        lines = [[name, figure(found, report.intervals, name)] for name in found]
        note = self._note(int(judged.sum()), without, int(each.empty.sum()))
        tables = {"figures": Table((self.field, "all"), lines, note)}
        tables["classes"] = self._per_class(each.counts.sum(0))
        report.tables = tables | report.tables
        iou = dict(zip(ids[judged].tolist(), by_picture["iou"].tolist(), strict=True))
        if isinstance(cells, Ragged) and len(cells.rows):
            owners = ids[cells.owners].tolist()
            order = sorted(range(len(owners)), key=lambda row: (np.nan_to_num(iou[owners[row]]), owners[row]))
            kept = [(owners[row], cells.rows[row].numpy()) for row in order[:WORST]]
            report.figures["worst.png"] = lambda path: self._draw(path, kept, iou)
        return report

    def _note(self, pictures: int, without: int, empty: int) -> str:
        where = "the picture's own size" if self._reader is not None else "the network's size"
        note = (
            f"{pictures:,} pictures at {where}; iou, dice, accuracy: of all pixels together; iou_picture, "
            "dice_picture, boundary_f: means over pictures that show a class (boundaries match within "
            f"{metrics.NEAR:.2%} of the diagonal)"
        )
        if empty:
            note += f"; empty_right: of the {empty:,} whose mask is empty, those in which nothing was found"
        return note + (f"; {without:,} without a mask are left out" if without else "")

    def _per_class(self, counts: np.ndarray) -> Table:
        iou, dice = metrics.overlaps(counts)
        names = self.names if len(self.names) == len(counts) else tuple(map(str, range(len(counts))))
        lines = [
            [name, number(one), number(two), int(pixels)]
            for name, one, two, pixels in zip(names, iou, dice, counts.sum(1), strict=True)
        ]
        return Table(("class", "iou", "dice", "pixels"), lines, "from the pixels of all pictures")

    def _draw(self, path: Path, kept: list[tuple[int, np.ndarray]], iou: Mapping[int, float]) -> None:
        said = {
            row: f"iou {iou[row]:.3f}" if np.isfinite(iou[row]) else "its mask is empty" for row, _ in kept
        }
        cells = [Cell(image, [f"{self._name(row)}  {said[row]}"]) for row, image in kept]
        draw_sheet(path, cells, title="picture, truth, prediction: the worst pictures", columns=2)

    def _name(self, row: int) -> str:
        return str(row) if self._shards is None else self._shards.member(row)


def _no_cell() -> np.ndarray:
    return np.zeros((0, CELL, 3 * CELL, 3), np.uint8)
