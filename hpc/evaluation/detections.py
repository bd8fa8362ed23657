"""How well are objects found? AP by COCO's protocol, precision and recall, recall by group, worst pictures.

The task's `predict` answers Ragged rows x0, y0, x1, y1 in pixels of the file, score, class; the truth is read
from the set. What a flag of the set calls ignored or a crowd is neither a target nor a mistake. The protocol:
`hpc/metrics/coco.py`, curves: `matched.py`, groups and pictures: `detections_shown.py`. Landmarks of what was
found, where the set states them and the task answers "landmarks": `landmarks_shown.py`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ragged import Ragged
from hpc.evaluation import detections_shown as shown
from hpc.evaluation import keys, landmarks_shown
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.metrics import coco, matched
from hpc.metrics.average_precision import Curve
from hpc.metrics.boxes import area, from_corner_and_size
from hpc.metrics.groups import Groups
from hpc.plots.confusion import draw_confusion
from hpc.plots.precision import draw_precision

if TYPE_CHECKING:
    from hpc.task import Task

IGNORED = ("ignore", "crowd")  # flags of the set
DIGITS = 4  # of the tables
CLASSES = 40  # with curves of their own
NOTHING = np.zeros(1, np.int64)


class Detections(Evaluator):
    """Judges the task's prediction `output` by the boxes of the set.

    boxes, kind, flags, area: its fields; all but the boxes may be absent. least: pixels at the training
    scale, see KEYS. most: detections of an image that count.
    """

    KEYS = keys.DETECTIONS
    headline = ("ap", "ap50")

    def __init__(
        self,
        *,
        output: str = "detections",
        boxes: str = "boxes",
        kind: str = "box_class",
        flags: str = "box_flags",
        area: str = "box_area",
        least: float = 0.0,
        most: int = coco.MOST,
    ) -> None:
        self.output, self.least, self.most = output, least, most
        self.boxes, self.kind, self.flags, self.area = boxes, kind, flags, area
        self._shards: Any = None
        self._ids = [np.zeros(0, np.int64)]
        self._scale = [np.zeros(0)]
        self._found = [Ragged(torch.zeros(0, 6, dtype=torch.float64), NOTHING)]
        self._points: list[Ragged] = []

    def begin(self, judged: JudgedSet) -> None:
        self._shards = judged.shards
        if self.boxes not in self._shards.ragged:
            raise UserError(f"{self._shards.folder} has no label {self.boxes}: judge a set with boxes")

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        answer = task.predict(nets, batch)
        placed = batch.placed
        scale = np.ones(len(batch)) if placed is None else np.sqrt((placed.size / placed.crop[:, 2:]).prod(1))
        points = answer.get(landmarks_shown.OUTPUT) if landmarks_shown.states(self._shards) else None
        if points is not None:
            landmarks_shown.check_names(self._shards, task)
        self.keep(batch.ids[:, 0].numpy(), answer[self.output], scale, points)

    def keep(self, ids: np.ndarray, found: Ragged, scale: np.ndarray, points: Ragged | None = None) -> None:
        """Keep the detections [k, 6] of the samples `ids` [n], and their landmarks [k, p, 2] (None = none).

        scale: [n], pixels seen by pixel of a file
        """
        if points is not None:
            self._points.append(Ragged(points.rows.double().cpu(), points.starts))
        self._ids.append(np.asarray(ids))
        self._scale.append(np.asarray(scale, np.float64))
        self._found.append(Ragged(found.rows.double().cpu(), found.starts))

    def rows(self) -> Rows:
        found: Rows = {
            "ids": np.concatenate(self._ids),
            "scale": np.concatenate(self._scale),
            "detections": Ragged.cat(self._found),
        }
        return found | ({landmarks_shown.OUTPUT: Ragged.cat(self._points)} if self._points else {})

    @property
    def names(self) -> list[str]:
        """The classes of the set, or `object` where it has none."""
        field = self._shards.schema.fields.get(self.kind)
        return list(field.names) if field else ["object"]

    def truths(self, ids: np.ndarray) -> coco.Truths:
        """Read the truth of the samples `ids` [n] from the set; an unknown class is ignored."""
        rows, counts = self._shards.ragged[self.boxes].rows_of(ids)
        starts = np.concatenate([[0], np.cumsum(counts)])
        boxes = from_corner_and_size(torch.from_numpy(np.asarray(rows, np.float64)).reshape(-1, 4))
        kinds = self._column(self.kind, ids, np.zeros(len(boxes), np.int64)).astype(np.int64)
        ignored = kinds < 0
        for name, flag in self.flags_of(ids).items():
            ignored |= flag if name in IGNORED else False
        sizes = area(boxes).numpy()
        stated = self._column(self.area, ids, np.full(len(boxes), -1.0)).astype(np.float64)
        return coco.Truths(
            Ragged(boxes, starts), np.maximum(kinds, 0), ignored, np.where(stated < 0, sizes, stated)
        )

    def flags_of(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return the flags of the truths of `ids`, by name: bool [m]."""
        if self.flags not in self._shards.ragged:
            return {}
        field = self._shards.schema.fields[self.flags]
        bits = self._column(self.flags, ids, np.zeros(0)).reshape(-1, len(field.names))
        return {name: bits[:, place] == 1 for place, name in enumerate(field.names)}

    def _column(self, name: str, ids: np.ndarray, absent: np.ndarray) -> np.ndarray:
        return (
            np.asarray(self._shards.ragged[name].rows_of(ids)[0]) if name in self._shards.ragged else absent
        )

    def choose(self, rows: Rows) -> dict[str, Any]:
        """Choose the score from which an object counts: that of the best F1."""
        found = rows["detections"]
        assert isinstance(found, Ragged)
        curve = matched.match(self.truths(np.asarray(rows["ids"])), found).curve()
        return {"score": float(curve.scores[curve.best])} if len(curve.scores) else {}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, scale, found = np.asarray(rows["ids"]), np.asarray(rows["scale"]), rows["detections"]
        assert isinstance(found, Ragged)
        check_finite(self.output, found.rows.numpy())
        truths, names = self.truths(ids), self.names
        if len(found.rows) and not (found.rows[:, 5].min() >= 0 and found.rows[:, 5].max() < len(names)):
            raise UserError(f"{self.output}: a class is not one of the {len(names)} of {self._shards.folder}")
        figures = coco.judge(truths, found, len(names), most=self.most)
        report = Report(_known(figures.scalars() | self._from_least(truths, found, scale)))
        pairs = matched.match(truths, found)
        curve = pairs.curve()
        at = float(self.chosen.get("score", curve.scores[curve.best] if len(curve.scores) else 1.0))
        report.scalars |= _known(_at(curve, at))
        shown.add_groups_of_truths(
            report, self, shown.Judged(ids, truths, pairs, self.flags_of(ids), names, at), groups, rounds
        )
        if landmarks_shown.OUTPUT in rows:
            landmarks_shown.add_landmarks(report, self._shards, ids, truths, pairs, rows)
        report.tables = self._tables(report, truths, found, figures, at) | report.tables
        report.curves["pr"] = _with_missed(pairs)
        self._add_figures(report, ids, truths, found, pairs, at)
        report.facts = {"computed_by": coco.library()}
        return report

    def _from_least(self, truths: coco.Truths, found: Ragged, scale: np.ndarray) -> dict[str, float]:
        """Return the AP of objects that are large enough where the network looks."""
        least = float(self.word("least")) or self.least
        if not least:
            return {}
        figures = coco.judge(
            truths.scaled(scale),
            coco.scaled(found, scale),
            len(self.names),
            most=self.most,
            bands={"all": (least**2, 1e10)},
        )
        return {f"ap_{least:g}px": figures.ap(), f"ap50_{least:g}px": figures.ap(threshold=0.5)}

    def _tables(
        self, report: Report, truths: coco.Truths, found: Ragged, figures: coco.CocoFigures, at: float
    ) -> dict[str, Table]:
        images, ignored = len(found), int(truths.ignored.sum())
        note = (
            f"{images:,} images, {len(truths.ignored) - ignored:,} objects, {ignored:,} ignored; "
            f"{len(found.rows):,} detections; f1, precision, recall: of scores of {at:.4g} or more, which "
            f"{'val chose' if self.chosen else 'is the best F1 here'}; IoU {matched.OVERLAP:g}"
        )
        cells: list[list[Any]] = [[name, round(value, DIGITS)] for name, value in report.scalars.items()]
        tables = {"figures": Table(("figure", "value"), cells, note)}
        if len(self.names) > 1:
            counts = np.bincount(truths.classes[~truths.ignored], minlength=len(self.names))
            rows = []
            for number, name in enumerate(self.names):
                values = figures.ap(only=number), figures.ap(threshold=0.5, only=number)
                rows.append([name, int(counts[number]), *(_rounded(value) for value in values)])
            tables["by class"] = Table(("class", "objects", "ap", "ap50"), rows)
        return tables

    def _add_figures(
        self,
        report: Report,
        ids: np.ndarray,
        truths: coco.Truths,
        found: Ragged,
        pairs: matched.Matched,
        at: float,
    ) -> None:
        names = self.names
        curves = {"all": pairs.curve()} if len(names) > 1 else {names[0]: pairs.curve()}
        kinds = found.rows[:, 5].numpy()
        for number, name in enumerate(names[:CLASSES] if 1 < len(names) <= CLASSES else ()):
            mine, own = kinds == number, pairs.judged & (truths.classes == number)
            if own.any():
                part = matched.Matched(
                    pairs.truth[mine], pairs.counted[mine], pairs.scores[mine], pairs.found, own
                )
                curves[name] = part.curve()
        counts = matched.confusion(truths, found, len(names), score=at)
        report.figures |= {
            "precision.png": lambda path: draw_precision(path, curves, title=f"IoU 0.5: {path.parent.name}"),
            "confusion.png": lambda path: draw_confusion(
                path, counts, [*names, "nothing"], title=f"scores of {at:.3g} or more: {path.parent.name}"
            ),
            "worst.png": lambda path: shown.draw_worst(path, self._shards, ids, truths, found, pairs, at),
        }


def _known(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if np.isfinite(value) else None


def _at(curve: Curve, score: float) -> dict[str, float]:
    """Return precision, recall and F1 of the detections of at least this score."""
    place = int(np.searchsorted(-curve.scores, -score, side="right")) - 1
    if place < 0:
        return {"f1": 0.0, "recall": 0.0, "score": score}
    found = {"f1": curve.f1[place], "precision": curve.precision[place], "recall": curve.recall[place]}
    return found | {"score": score}


def _with_missed(pairs: matched.Matched) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels 0/1 of a curve; a truth that was not found has a score of 0."""
    missed = int((pairs.judged & np.isinf(pairs.found)).sum())
    right = (pairs.truth[pairs.counted] >= 0).astype(np.int64)
    return (
        np.concatenate([pairs.scores[pairs.counted], np.zeros(missed)]),
        np.concatenate([right, np.ones(missed, np.int64)]),
    )
