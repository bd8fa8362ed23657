"""What evaluators of classes and of bits share: logits and labels by sample, and small helpers of tables."""

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from data_shards.batch import Batch
from hpc.evaluation.base import Evaluator, JudgedSet, Rows
from hpc.metrics.bootstrap import Measured

if TYPE_CHECKING:
    from hpc.task import Task


class OfLogits(Evaluator):
    """Keeps logits and labels by sample; what they mean is its subclasses' business.

    field: the label. output: of `Task.predict` (None = as the field is named). names: of the classes or bits
    (empty = those of the judged set).
    """

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

    def keep(self, ids: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> None:
        """Keep logits `predicted` [n, k] and `labels` [n] (or [n, k] bits) of the samples `ids` [n]."""
        self._parts.append(
            {
                "ids": np.asarray(ids),
                "logits": np.asarray(predicted, np.float32),
                "labels": np.asarray(labels),
            }
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


def single(found: dict[str, Measured]) -> dict[str, float]:
    """Return the single figures of one round by name."""
    return {name: float(each.values[0, 0]) for name, each in found.items() if len(each.values) == 1}


def finite(found: dict[str, float]) -> dict[str, float]:
    """Leave out figures that are not defined."""
    return {name: value for name, value in found.items() if np.isfinite(value)}


def number(value: float) -> str:
    """Write a figure of a table, `-` where it is not defined."""
    return f"{value:.4g}" if np.isfinite(value) else "-"
