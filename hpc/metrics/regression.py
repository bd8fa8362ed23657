"""Figures of predicted numbers: errors of a value such as an age. Pure numpy in float64."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hpc.metrics.bootstrap import Measured, mean


def errors(predicted: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> dict[str, float]:
    """Compute mean absolute error, root mean square, bias (mean of predicted - truth) and R2.

    All arrays: [n]. NaN without samples; R2 is NaN where the truth does not vary.
    """
    truth = np.asarray(truth, np.float64)
    each = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)
    total = each.sum()
    if not total:
        return dict.fromkeys(("mae", "rmse", "bias", "r2"), float("nan"))
    off = np.asarray(predicted, np.float64) - truth
    square = each @ off**2
    spread = each @ (truth - each @ truth / total) ** 2
    return {
        "mae": float(each @ np.abs(off) / total),
        "rmse": float(np.sqrt(square / total)),
        "bias": float(each @ off / total),
        "r2": float(1 - square / spread) if spread > 0 else float("nan"),
    }


@dataclass(frozen=True)
class ErrorFigures:
    """The errors of predicted numbers in many resamples at once (`bootstrap.Figures`).

    off [n]: predicted less truth. within: name -> largest absolute error that counts, as in `cs5`: 5 years.
    """

    off: np.ndarray
    within: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, rows: np.ndarray, weight: np.ndarray) -> dict[str, Measured]:
        off = self.off[rows]
        square = mean(off**2, weight)
        found = {"mae": mean(np.abs(off), weight), "rmse": Measured(np.sqrt(square.values), square.support)}
        found["bias"] = mean(off, weight)
        return found | {name: mean(np.abs(off) <= limit, weight) for name, limit in self.within.items()}
