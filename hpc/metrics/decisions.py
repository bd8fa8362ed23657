"""Figures of decisions in many resamples at once (`bootstrap.Figures`): of classes, and of bits.

Besides accuracy they hold what fairness is measured by. Equalised odds: the true and the false positive rate
of each class (Hardt et al., Equality of opportunity in supervised learning, 2016). Demographic parity: the
share of samples that are called so. The largest difference of any of them between two groups is what
fairlearn calls the equalized odds difference, and the demographic parity difference.
"""

from dataclasses import dataclass

import numpy as np

from hpc.metrics import roc
from hpc.metrics.bootstrap import Measured, share

Array = np.ndarray
ODDS, PARITY = "equalized_odds", "demographic_parity"


def confusions(labels: Array, predicted: Array, classes: int, weight: Array) -> Array:
    """Count float64 [k, k, rounds] as `classification.confusion`, with weights [n, rounds]."""
    counts = np.zeros((classes * classes, weight.shape[1]))
    cells = np.asarray(labels, np.int64) * classes + predicted
    order = np.argsort(cells, kind="stable")
    occur, starts = np.unique(cells[order], return_index=True)
    if len(occur):
        counts[occur] = np.add.reduceat(weight[order], starts, axis=0)
    return counts.reshape(classes, classes, -1)


def nan_mean(values: Array) -> Array:
    """Return the mean over the first axis of what is defined, NaN where nothing is."""
    defined = np.isfinite(values)
    return share(np.where(defined, values, 0.0).sum(0), defined.sum(0).astype(np.float64))


def log_odds(logits: Array, chosen: int) -> Array:
    """Return the log odds [n] of class `chosen` against all others, from logits [n, k]."""
    others = np.delete(np.asarray(logits, np.float64), chosen, axis=1)
    top = others.max(1)
    return np.asarray(logits[:, chosen] - (top + np.log(np.exp(others - top[:, None]).sum(1))))


@dataclass(frozen=True)
class ClassFigures:
    """The figures of predicted classes. labels, predicted: [n] in [0, k); logits [n, k] (None = no AUC)."""

    labels: Array
    predicted: Array
    classes: int
    logits: Array | None = None

    def __call__(self, rows: Array, weight: Array) -> dict[str, Measured]:
        labels = self.labels[rows]
        counts = confusions(labels, self.predicted[rows], self.classes, weight)
        hits, called, true = np.einsum("kkr->kr", counts), counts.sum(0), counts.sum(1)
        total = true.sum(0, keepdims=True)
        f1 = np.where(true + called > 0, share(2 * hits, true + called), np.nan)
        found = {
            "accuracy": Measured(share(hits.sum(0, keepdims=True), total), total),
            "balanced_accuracy": Measured(nan_mean(share(hits, true))[None], total),
            "macro_f1": Measured(nan_mean(f1)[None], total),
        }
        if self.logits is not None:
            found["auc"] = Measured(self._auc(labels, self.logits[rows], weight)[None], total)
        wrong, others = called - hits, total - true
        odds = np.concatenate([share(hits, true), share(wrong, others)])
        found[ODDS] = Measured(odds, np.concatenate([true, others]))
        found[PARITY] = Measured(share(called, total), np.repeat(total, self.classes, 0))
        return found

    def _auc(self, labels: Array, logits: Array, weight: Array) -> Array:
        """Return the AUC [rounds]: of two classes, or the mean of each class against all others."""
        judged = (1,) if self.classes == 2 else range(self.classes if self.classes > 2 else 0)
        areas = [roc.areas(log_odds(logits, each), labels == each, weight) for each in judged]
        return nan_mean(np.stack(areas)) if areas else np.full(weight.shape[1], np.nan)


@dataclass(frozen=True)
class BitFigures:
    """The figures of predicted bits, means over the bits. known, positive: bool [n, b]; logits [n, b]."""

    known: Array
    positive: Array
    logits: Array

    def __call__(self, rows: Array, weight: Array) -> dict[str, Measured]:
        each = self.each(rows, weight)
        total = weight.sum(0, keepdims=True)
        names = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
        found = {name: Measured(nan_mean(each[name.removeprefix("macro_")])[None], total) for name in names}
        odds = np.concatenate([each["recall"], each["false_alarms"]])
        found[ODDS] = Measured(odds, np.concatenate([each["ones"], each["zeros"]]))
        found[PARITY] = Measured(each["called"], each["ones"] + each["zeros"])
        return found

    def each(self, rows: Array, weight: Array) -> dict[str, Array]:
        """Return the figures of each bit, [b, rounds]."""
        known, positive, called = self.known[rows], self.positive[rows], self.logits[rows] > 0

        def sums(which: Array) -> Array:
            return (known & which).T.astype(np.float32) @ weight  # whole numbers: exact in any order

        ones, zeros = sums(positive), sums(~positive)
        hits, alarms = sums(positive & called), sums(~positive & called)
        areas = [
            roc.areas(self.logits[rows, bit][sure], positive[sure, bit], weight[sure])
            for bit, sure in enumerate(known.T)
        ]
        total = ones + zeros
        recall, false_alarms = share(hits, ones), share(alarms, zeros)
        return {
            "accuracy": share(hits + (zeros - alarms), total),
            "balanced_accuracy": (recall + 1 - false_alarms) / 2,
            "precision": share(hits, hits + alarms),
            "recall": recall,
            "f1": share(2 * hits, hits + alarms + ones),
            "auc": np.stack(areas) if areas else np.zeros((0, weight.shape[1])),
            "majority": share(np.maximum(ones, zeros), total),
            "share": share(ones, total),
            "false_alarms": false_alarms,
            "called": share(hits + alarms, total),
            "ones": ones,
            "zeros": zeros,
        }
