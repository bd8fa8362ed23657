"""Is the class right? Figures of a field of kind `class` or `bits`, calibrated on val, overall and by group.

A task predicts logits: [n, k] of k classes, or [n, b] of b bits. Unknown labels are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from data_shards.errors import UserError
from hpc.evaluation import decided, keys
from hpc.evaluation.base import JudgedSet, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import Shown, add_groups, figure
from hpc.evaluation.by_unit import add_units
from hpc.evaluation.keys import Key
from hpc.evaluation.logits import OfLogits, finite, number, single
from hpc.metrics import bootstrap
from hpc.metrics import classification as metrics
from hpc.metrics.bootstrap import Figures
from hpc.metrics.decisions import BitFigures, ClassFigures, log_odds
from hpc.metrics.groups import Groups
from hpc.plots import calibration, confusion

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
RATES = ("tar", "far")
BIT_COLUMNS = ("accuracy", "majority", "balanced_accuracy", "precision", "recall", "f1", "auc", "share")


@dataclass(frozen=True)
class _Judged:
    """The samples whose class is known, and what is decided of them."""

    ids: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    figures: Figures
    shown: Shown

    @property
    def right(self) -> np.ndarray:
        return np.asarray(self.predicted == self.labels)


class Classes(OfLogits):
    """Judges logits [n, k] by the class of each sample: one of k.

    On val it chooses a temperature, by which logits are divided before probabilities are reported. With `far`
    it also chooses the threshold of a decision between two classes. positive: the class that is accepted then
    (empty = the second one). units: also judge identities (people or clips), their scores averaged.
    """

    KEYS: ClassVar[Mapping[str, Key]] = keys.CLASSES
    headline = SHOWN
    graded = True  # whether the logits say how sure they are (a file may name classes only)

    def __init__(
        self,
        field: str,
        *,
        output: str | None = None,
        names: tuple[str, ...] = (),
        far: float = 0.0,
        positive: str = "",
        units: bool = False,
    ) -> None:
        super().__init__(field, output=output, names=names)
        self.far, self.positive, self.units = far, positive, units
        self._identity: np.ndarray | None = None

    def begin(self, judged: JudgedSet) -> None:
        super().begin(judged)
        identity = getattr(judged.shards, "labels", {}).get("identity")
        if identity is not None:
            alone = -1 - np.arange(len(identity))
            self._identity = np.where(np.asarray(identity) < 0, alone, identity)

    def choose(self, rows: Rows) -> dict[str, Any]:
        _, logits, labels = self._usable(rows)
        far = float(self.word("far")) or self.far
        several = len(np.unique(labels)) > 1
        found: dict[str, Any] = {}
        if several:
            found["temperature"] = metrics.best_temperature(logits, labels)
        if far:
            place = self._accepted(logits.shape[1])
            temperature = found.get("temperature", 1.0)
            found |= decided.choose_threshold(
                log_odds(logits, place), labels == place, far=far, temperature=temperature, field=self.field
            )
        return found

    def _accepted(self, count: int) -> int:
        """Return the number of the class that a threshold accepts."""
        if count != 2:
            raise UserError(
                f"far=: {self.field} has {count} classes, a threshold decides between two: leave it out"
            )
        names = self._named(count)
        if self.positive and self.positive not in names:
            raise UserError(
                f"positive={self.positive} is not a class of {self.field}: use {' or '.join(names)}"
            )
        return names.index(self.positive) if self.positive else 1

    def _decide(self, logits: np.ndarray) -> np.ndarray:
        """Return the predicted classes [n]: the likeliest, or by the chosen threshold."""
        if "threshold" not in self.chosen or not len(logits):
            return np.asarray(logits.argmax(1))
        place = self._accepted(logits.shape[1])
        return np.where(log_odds(logits, place) >= self.chosen["threshold"], place, 1 - place)

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        logits = prediction[self.output][None]
        if not self.names:
            self.names = tuple(getattr(fields.get(self.field), "names", ()))
        share = metrics.softmax(logits, float(self.chosen.get("temperature", 1.0)))[0]
        best = int(self._decide(logits)[0])
        name = self.names[best] if len(self.names) == len(share) else best
        return {self.field: name, f"{self.field}_confidence": float(share[best])}

    def targets(self, labels: np.ndarray) -> np.ndarray:
        count = max(len(self.names), int(labels.max(initial=0)) + 1)
        known = self._known(labels)
        hot = np.eye(count)[np.where(known, labels, 0).astype(np.int64)]
        return np.where(known[:, None], hot, np.nan)

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

    def _judged(self, rows: Rows) -> _Judged:
        ids, logits, labels = self._usable(rows)
        predicted = self._decide(logits)
        figures: Figures = ClassFigures(labels, predicted, logits.shape[1], logits if self.graded else None)
        names = SHOWN if self.graded else SHOWN[:3]
        if "threshold" in self.chosen:
            place = self._accepted(logits.shape[1])
            classes, rates = figures, decided.rates(labels == place, predicted == place)

            def both(rows: np.ndarray, weight: np.ndarray) -> dict[str, bootstrap.Measured]:
                return classes(rows, weight) | rates(rows, weight)

            figures, names = both, (*names, *RATES)
        shown = Shown(names, shares=("accuracy", "balanced_accuracy", *RATES))
        return _Judged(ids, logits, labels, predicted, figures, shown)

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        judged = self._judged(rows)
        logits, labels, right = judged.logits, judged.labels, judged.right
        temperature = float(self.chosen.get("temperature", 1.0))
        sure, calibrated = (metrics.softmax(logits, each).max(1) for each in (1.0, temperature))
        found = single(bootstrap.flat(judged.figures, np.arange(len(labels))))
        if len(labels) and self.graded:
            found["log_loss"] = metrics.log_loss(logits, labels)
            found["ece"] = metrics.calibration_error(sure, right)
            if "temperature" in self.chosen:
                found["log_loss_calibrated"] = metrics.log_loss(logits, labels, temperature)
                found["ece_calibrated"] = metrics.calibration_error(calibrated, right)
        report = Report(finite(found))
        confidence = metrics.softmax(logits, temperature)[np.arange(len(labels)), judged.predicted]
        report.rows = {
            "ids": judged.ids,
            "predicted": judged.predicted,
            "truth": labels,
            "confidence": confidence,
        }
        add_groups(report, self, judged.figures, judged.ids, self._other(groups), rounds, judged.shown)
        cells = [[name, figure(found, report.intervals, name)] for name in found]
        counts = metrics.confusion(labels, judged.predicted, logits.shape[1])
        names = self._named(logits.shape[1])
        report.tables = {
            "figures": Table((self.field, "all"), cells, self._note(len(labels))),
            "classes": _per_class(counts, names),
        } | report.tables
        if (self.units or self.typed.get("by") == "identity") and self._identity is not None and len(labels):
            units = self._identity[judged.ids]
            add_units(report, logits, labels, units, shown=SHOWN, rounds=rounds)
        report.notes += self._notes(labels, names)
        curves = {"uncalibrated": (sure, right)}
        if "temperature" in self.chosen:
            curves[f"T={temperature:.3g}"] = calibrated, right
        self._add_pictures(report, counts, names, curves)
        return report

    def _note(self, count: int) -> str:
        note = f"{count:,} samples whose {self.field} is known; macro_f1: mean F1 of the classes"
        if "temperature" in self.chosen:
            temperature = self.chosen["temperature"]
            note += f"; calibrated: logits are divided by {temperature:.4g}, chosen on {self.chosen_on}"
        return note

    def _notes(self, labels: np.ndarray, names: tuple[str, ...]) -> list[str]:
        notes = []
        if len(labels) and (labels == labels[0]).all():
            notes.append(
                f"note: all {len(labels):,} samples are of the class {names[labels[0]]}: the figures say "
                "nothing of the others, and there is no AUC"
            )
        if "threshold" in self.chosen:
            notes += decided.notes(dict(self.chosen), names[self._accepted(len(names))], self.chosen_on)
        return notes

    def _add_pictures(
        self,
        report: Report,
        counts: np.ndarray,
        names: tuple[str, ...],
        curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        def draw_confusion(path: Path) -> None:
            confusion.draw_confusion(path, counts, names, title=f"{self.field}: {path.parent.name}")

        def draw_calibration(path: Path) -> None:
            calibration.draw_calibration(path, curves, title=f"{self.field}: {path.parent.name}")

        pictures = {"confusion.png": draw_confusion}
        if self.graded:
            pictures["calibration.png"] = draw_calibration
        report.figures = pictures | report.figures


def _per_class(counts: np.ndarray, names: tuple[str, ...]) -> Table:
    each = metrics.per_class(counts)
    columns = (each.precision, each.recall, each.f1, each.support)
    cells = [
        [name, *(number(value) for value in values[:3]), int(values[3])]
        for name, *values in zip(names, *columns, strict=True)
    ]
    return Table(("class", "precision", "recall", "f1", "samples"), cells)


class Bits(OfLogits):
    """Judges logits [n, b] by b bits of each sample: accuracy at probability 0.5, and ROC AUC, of each."""

    KEYS: ClassVar[Mapping[str, Key]] = keys.BITS
    headline = SHOWN

    def record(self, prediction: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
        share = metrics.sigmoid(prediction[self.output])
        names = self.names or getattr(fields.get(self.field), "names", ())
        named = names if len(names) == len(share) else range(len(share))
        return {f"{self.field}_{name}": float(value) for name, value in zip(named, share, strict=True)}

    def targets(self, labels: np.ndarray) -> np.ndarray:
        return np.where(self._known(labels), np.where(labels == 1, 1.0, -1.0), np.nan)

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, logits, labels = (np.asarray(rows[name]) for name in ("ids", "logits", "labels"))
        check_finite(self.output, logits)
        labels = labels.reshape(logits.shape)
        known, positive = self._known(labels), labels == 1
        figures = BitFigures(known, positive, logits)
        everything = np.arange(len(ids))
        found = single(bootstrap.flat(figures, everything))
        each = {name: part[:, 0] for name, part in figures.each(everything, np.ones((len(ids), 1))).items()}
        above = each["accuracy"] > each["majority"]
        if len(ids):
            found["bits_above_majority"] = float(above.sum())
            found["majority"] = float(np.nanmean(each["majority"]))
        report = Report(finite(found))
        shown = Shown(SHOWN, shares=("accuracy", "balanced_accuracy"))
        add_groups(report, self, figures, ids, groups, rounds, shown)
        cells = [[name, figure(found, report.intervals, name)] for name in found]
        note = (
            f"means over the bits of {self.field}, {len(ids):,} samples; majority: accuracy of always the "
            f"commoner value here; {int(above.sum())} of {len(above)} bits are above it"
        )
        lines = [
            [name, *(number(each[part][bit]) for part in BIT_COLUMNS), int(known[:, bit].sum())]
            for bit, name in enumerate(self._named(logits.shape[1]))
        ]
        tables = {"figures": Table((self.field, "all"), cells, note)}
        tables["bits"] = Table(("bit", *BIT_COLUMNS, "samples"), lines, "share: of 1 among the known labels")
        report.tables = tables | report.tables
        return report
