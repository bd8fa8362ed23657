"""What a label asks of a network: how many outputs, which loss, and which prediction comes of them.

A head is one entry of `task.heads` in a classifier's yaml, named after the label that it predicts. Its `loss`
says how: `FAMILIES` lists them by the kind of the label. The formulas are in `labels.py`. What the keys mean:
`hpc/tasks/classifier_plan.py`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hpc.config.heads import outputs_of
from hpc.losses import labels as losses


class Head:
    """One label of each image. `outputs`: how many numbers the network gives for it."""

    def __init__(self, field: str, keys: Mapping[str, Any]) -> None:
        self.field, self.keys = field, keys
        self.outputs = outputs_of(keys)
        self.weight = float(keys["weight"])  # of its loss in the sum over the heads

    def balance(self, column: Any) -> list[float]:
        """Return weights from the labels of the training set, a numpy array; [] where all count alike."""
        return []

    def loss(self, out: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss [n] of `out` [n, outputs]; `weights` are those of `balance`."""
        raise NotImplementedError

    def predict(self, out: Tensor) -> Tensor:
        """Return what an evaluator judges: logits [n, k] of classes or bits, or numbers [n]."""
        raise NotImplementedError


class ClassHead(Head):
    """A class: `softmax` has an output for each of k, `sigmoid` one for class 1 of two."""

    def balance(self, column: Any) -> list[float]:
        if not self.keys["balance"]:
            return []
        counts = [int((column == number).sum()) for number in range(len(self.keys["classes"]))]
        return losses.class_weights(counts, self.keys["balance"])

    def loss(self, out: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
        logits = losses.two_classes(out) if self.keys["loss"] == "sigmoid" else out
        return losses.softmax(
            logits,
            label,
            smoothing=self.keys["smoothing"],
            focal=self.keys["focal"],
            weights=weights,
        )

    def predict(self, out: Tensor) -> Tensor:
        return losses.two_classes(out) if self.keys["loss"] == "sigmoid" else out


class BitsHead(Head):
    """Several marks, yes or no each: an output for each."""

    def balance(self, column: Any) -> list[float]:
        if not self.keys["balance"]:
            return []
        ones, known = (column == 1).sum(0).tolist(), (column >= 0).sum(0).tolist()
        return losses.positive_weights(ones, known, self.keys["balance"])

    def loss(self, out: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
        return losses.bits(out, label, focal=self.keys["focal"], positive=weights)

    def predict(self, out: Tensor) -> Tensor:
        return out


class NumberHead(Head):
    """A number within a range, by its distance (`l1`), by answers (`ordinal`) or as a `distribution`."""

    def __init__(self, field: str, keys: Mapping[str, Any]) -> None:
        super().__init__(field, keys)
        self.low, self.high = keys["low"], keys["high"]

    def loss(self, out: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
        span = {"low": self.low, "high": self.high}
        if self.keys["loss"] == "l1":
            return losses.l1(out, label, **span)
        if self.keys["loss"] == "ordinal":
            return losses.ordinal(out, label, **span)
        return losses.distribution(out, label, **span, sigma=self.keys["sigma"])

    def predict(self, out: Tensor) -> Tensor:
        if self.keys["loss"] == "l1":
            return losses.number_of(out, self.low, self.high)
        if self.keys["loss"] == "ordinal":
            return losses.ordinal_number(out, self.low)
        return losses.distribution_number(out, self.low)


HEADS: dict[str, type[Head]] = {"class": ClassHead, "bits": BitsHead, "value": NumberHead}
