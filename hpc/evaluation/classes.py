"""Is the class right? Figures of a field of kind `class` or `bits`, calibrated on val, overall and by group.

A task predicts logits: [n, k] of k classes, or [n, b] of b bits. Unknown labels are left out.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from hpc.evaluation import keys
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import add_groups, figure
from hpc.metrics import classification as metrics
from hpc.metrics import roc
from hpc.metrics.groups import Groups
from hpc.plots import calibration, confusion

if TYPE_CHECKING:
    from hpc.task import Task

SHOWN = ("accuracy", "balanced_accuracy", "f1")
BIT_COLUMNS = ("accuracy", "balanced_accuracy", "auc", "share")
SHOWN_BITS = ("accuracy", "balanced_accuracy")


class _OfLogits(Evaluator):
    """Keeps logits and labels by sample; what they mean is its subclasses' business."""

    KEYS = keys.CLASSES

    def __init__(self, field: str, *, output: str | None = None, names: tuple[str, ...] = ()) -> None:
        self.field, self.output, self.names = field, output or field, names
        self._unknown: float | None = -1
        self._parts: list[dict[str, np.ndarray]] = []

    def begin(self, judged: JudgedSet) -> None:
        if judged.shards is not None and self.field in judged.shards.schema.fields:
            field = judged.shards.schema.fields[self.field]
            self._unknown, self.names = field.unknown, self.names or tuple(field.names)

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        logits = task.predict(nets, batch)[self.output].float().cpu().numpy()
        self.keep(batch.ids[:, 0].numpy(), logits, batch.labels[self.field].cpu().numpy())

    def keep(self, ids: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        """Keep `logits` [n, k] and `labels` [n] (or [n, k] bits) of the samples `ids` [n]."""
        self._parts.append(
            {"ids": np.asarray(ids), "logits": np.asarray(logits, np.float32), "labels": np.asarray(labels)}
        )

    def rows(self) -> Rows:
        if not self._parts:
            return {
                "ids": np.zeros(0, np.int64),
                "logits": np.zeros((0, 1), np.float32),
                "labels": np.zeros(0),
            }
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def _known(self, labels: np.ndarray) -> np.ndarray:
        return np.ones(labels.shape, bool) if self._unknown is None else labels != self._unknown

    def _named(self, count: int) -> tuple[str, ...]:
        return self.names if len(self.names) == count else tuple(map(str, range(count)))


class Classes(_OfLogits):
    """Judges logits [n, k] by the class of each sample: one of k.

    On val it chooses a temperature, by which logits are divided before probabilities are reported.
    """

    graded = True  # whether the logits say how sure they are (a file may name classes only)

    def choose(self, rows: Rows) -> dict[str, Any]:
        _, logits, labels = self._usable(rows)
        return {"temperature": metrics.best_temperature(logits, labels)} if len(labels) else {}

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        share = metrics.softmax(prediction[self.output][None])[0]
        best = int(share.argmax())
        names = self.names or getattr(fields.get(self.field), "names", ())
        name = names[best] if len(names) == len(share) else best
        return {self.field: name, f"{self.field}_confidence": float(share[best])}

    def _usable(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, logits, labels = (np.asarray(rows[name]) for name in ("ids", "logits", "labels"))
        check_finite(self.output, logits)
        known = self._known(labels)
        if known.any() and labels[known].max() >= logits.shape[1]:
            raise UserError(
                f"{self.output} has {logits.shape[1]} classes, the label {self.field} holds number "
                f"{int(labels[known].max())}: judge a set with the classes of the training"
            )
        return ids[known], logits[known], labels[known].astype(np.int64)

    def _other(self, groups: Groups) -> Groups:
        """Leave out the judged class, unless it was typed: its groups have one class each, as the recalls."""
        typed = [name.strip() for name in str(self.typed.get("groups", "")).split(",")]
        kept = {name: each for name, each in groups.columns.items() if name != self.field or name in typed}
        return replace(groups, columns=kept)

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, logits, labels = self._usable(rows)
        count = logits.shape[1]
        names, predicted = self._named(count), logits.argmax(1)
        temperature = float(self.chosen.get("temperature", 1.0))
        sure, calibrated = (metrics.softmax(logits, each).max(1) for each in (1.0, temperature))
        right = predicted == labels

        def figures(weight: np.ndarray) -> dict[str, float]:
            return metrics.summary(metrics.confusion(labels, predicted, count, weight))

        counts = metrics.confusion(labels, predicted, count)
        found = metrics.summary(counts)
        if len(labels) and self.graded:
            found["log_loss"] = metrics.log_loss(logits, labels)
            found["ece"] = metrics.calibration_error(sure, right)
            if self.chosen:
                found["log_loss_calibrated"] = metrics.log_loss(logits, labels, temperature)
                found["ece_calibrated"] = metrics.calibration_error(calibrated, right)
        report = Report({name: value for name, value in found.items() if np.isfinite(value)})
        report.rows = {"ids": ids, "predicted": predicted, "truth": labels, "confidence": calibrated}
        gate = float(self.typed.get("gate", 0))
        others = self._other(groups)
        add_groups(report, figures, ids, others, shown=SHOWN, rounds=rounds, gate=gate)
        cells = [[name, figure(found, report.intervals, name)] for name in found]
        note = f"{len(ids):,} samples whose {self.field} is known"
        if self.chosen:
            note += f"; calibrated: logits are divided by {temperature:.4g}, chosen on {self.chosen_on}"
        tables = {"figures": Table((self.field, "all"), cells, note), "classes": _per_class(counts, names)}
        report.tables = tables | report.tables
        curves = {"uncalibrated": (sure, right)} | (
            {f"T={temperature:.3g}": (calibrated, right)} if self.chosen else {}
        )

        def draw_confusion(path: Path) -> None:
            confusion.draw_confusion(path, counts, names, title=f"{self.field}: {path.parent.name}")

        def draw_calibration(path: Path) -> None:
            calibration.draw_calibration(path, curves, title=f"{self.field}: {path.parent.name}")

        report.figures["confusion.png"] = draw_confusion
        if self.graded:
            report.figures["calibration.png"] = draw_calibration
        return report


def _per_class(counts: np.ndarray, names: tuple[str, ...]) -> Table:
    each = metrics.per_class(counts)
    columns = (each.precision, each.recall, each.f1, each.support)
    cells = [
        [name, *(_number(value) for value in values[:3]), int(values[3])]
        for name, *values in zip(names, *columns, strict=True)
    ]
    return Table(("class", "precision", "recall", "f1", "samples"), cells)


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"


class Bits(_OfLogits):
    """Judges logits [n, b] by b bits of each sample: accuracy at probability 0.5, and ROC AUC, of each."""

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        share = metrics.sigmoid(prediction[self.output])
        names = self.names or getattr(fields.get(self.field), "names", ())
        named = names if len(names) == len(share) else range(len(share))
        return {f"{self.field}_{name}": float(value) for name, value in zip(named, share, strict=True)}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, logits, labels = (np.asarray(rows[name]) for name in ("ids", "logits", "labels"))
        check_finite(self.output, logits)
        labels = labels.reshape(logits.shape)
        known, positive = self._known(labels), labels == 1
        right = (logits > 0) == positive

        def figures(weight: np.ndarray) -> dict[str, float]:
            each = metrics.bits(known, positive, right, weight)
            return {name: _mean(values) for name, values in each.items() if name in SHOWN_BITS}

        each = metrics.bits(known, positive, right, np.ones(len(ids)))
        each["auc"] = np.array(
            [_area(*(part[:, bit] for part in (logits, positive, known))) for bit in range(logits.shape[1])]
        )
        found = {name: _mean(values) for name, values in each.items() if name != "share"}
        report = Report({name: value for name, value in found.items() if np.isfinite(value)})
        gate = float(self.typed.get("gate", 0))
        add_groups(report, figures, ids, groups, shown=SHOWN_BITS, rounds=rounds, gate=gate)
        cells = [[name, figure(found, report.intervals, name)] for name in found]
        note = f"means over the bits of {self.field}, {len(ids):,} samples"
        lines = [
            [name, *(_number(each[part][bit]) for part in BIT_COLUMNS), int(known[:, bit].sum())]
            for bit, name in enumerate(self._named(logits.shape[1]))
        ]
        tables = {"figures": Table((self.field, "all"), cells, note)}
        tables["bits"] = Table(("bit", *BIT_COLUMNS, "samples"), lines, "share: of 1 among the known labels")
        report.tables = tables | report.tables
        return report


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _area(logits: np.ndarray, positive: np.ndarray, known: np.ndarray) -> float:
    """Return the ROC AUC of one bit; NaN where the known labels are of one kind."""
    positive = positive[known]
    if not positive.any() or positive.all():
        return float("nan")
    return roc.area(roc.rank(logits[known], positive).roc())
