"""Figures of a classifier from its logits: confusion, precision, recall, F1, calibration, temperature.

Pure numpy in float64. Samples may have weights (a bootstrap counts a sample several times).
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
BINS = 15  # of a calibration error
RANGE = (0.05, 20.0)  # of a temperature


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Return probabilities [n, k] float64 of `logits` [n, k]."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def sigmoid(logits: Array) -> Array:
    """Return the probability of 1, float64, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def confusion(labels: Array, predicted: Array, classes: int, weight: Array | None = None) -> Array:
    """Count float64 [k, k]: rows are `labels` [n], columns `predicted` [n], both in [0, k)."""
    cells = np.asarray(labels, np.int64) * classes + predicted
    return (
        np.bincount(cells, weight, minlength=classes * classes).astype(np.float64).reshape(classes, classes)
    )


@dataclass(frozen=True)
class PerClass:
    """Figures [k] of each class; NaN where they are not defined."""

    precision: Array  # of those that are called so, the share that is
    recall: Array  # of those that are so, the share that is called so
    f1: Array  # harmonic mean of the two; 0 where both are 0
    support: Array  # samples (or weight) of the class


def per_class(counts: Array) -> PerClass:
    """Compute the figures of each class from a confusion matrix [k, k]."""
    hits, called, support = np.diag(counts), counts.sum(0), counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return PerClass(hits / called, hits / support, 2 * hits / (called + support), support)


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width of the confidence: their means and their weight [bins]."""

    confidence: Array
    accuracy: Array
    weight: Array


def reliability(
    confidence: Array, right: Array, weight: Array | None = None, bins: int = BINS
) -> Reliability:
    """Bin predictions by `confidence` [n] in [0, 1]; `right` [n]: whether each is. Empty bins are 0."""
    each = np.ones(len(confidence)) if weight is None else np.asarray(weight, np.float64)
    # A bin includes its upper edge, as in Guo et al. 2017.
    place = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    total = np.bincount(place, each, minlength=bins)
    sure, hits = (np.bincount(place, each * part, minlength=bins) for part in (confidence, right))
    return Reliability(sure / np.maximum(total, 1e-300), hits / np.maximum(total, 1e-300), total)


def calibration_error(
    confidence: Array, right: Array, weight: Array | None = None, bins: int = BINS
) -> float:
    """Return the ECE: the mean distance of confidence and accuracy over bins of equal width.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, equation 3.
    """
    found = reliability(confidence, right, weight, bins)
    if not found.weight.sum():
        return float("nan")
    return float(found.weight @ np.abs(found.confidence - found.accuracy) / found.weight.sum())


def log_loss(logits: Array, labels: Array, temperature: float = 1.0) -> float:
    """Return the mean negative log likelihood of `labels` [n] under `logits` [n, k] / `temperature`."""
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(1))
    return float((total - scaled[np.arange(len(labels)), labels]).mean())


def best_temperature(logits: Array, labels: Array) -> float:
    """Return the temperature of the least log loss, within RANGE (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T, so its slope is bisected: sum of E[z] - z of the label.
    """
    wide = np.asarray(logits, np.float64)
    label = wide[np.arange(len(labels)), labels]
    low, high = 1 / RANGE[1], 1 / RANGE[0]
    for _ in range(60):
        middle = np.sqrt(low * high)
        slope = ((softmax(wide, 1 / middle) * wide).sum(1) - label).sum()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(1 / np.sqrt(low * high))
