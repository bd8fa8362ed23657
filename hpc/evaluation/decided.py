"""Decisions between two classes at a threshold that val chose: at most so many false accepts.

The positive class is accepted where its log odds are at or above the threshold, which is the same for all
groups of people. Its figures: the true accept rate (TAR) and the false accept rate (FAR).
"""

from typing import Any

import numpy as np

from data_shards.errors import UserError
from hpc.metrics import roc
from hpc.metrics.bootstrap import Figures, Measured, share
from hpc.metrics.classification import sigmoid

SUPPORT = 10  # false accepts that a threshold should rest on


def choose_threshold(
    odds: np.ndarray, positive: np.ndarray, *, far: float, temperature: float, field: str
) -> dict[str, Any]:
    """Choose the lowest threshold of the log `odds` [n] whose false accept rate is at most `far`.

    positive [n] bool: whether the sample is of the class that is accepted. Raises UserError where all or none
    are.
    """
    if not positive.any() or positive.all():
        kind = "positives" if positive.all() else "negatives"
        raise UserError(
            f"far={far:g}: all {len(positive)} images on which {field} chooses its threshold are {kind}: "
            "give a val set of both classes"
        )
    tar, threshold = roc.at_far(roc.rank(odds, positive).roc(), far)
    return {
        "far": far,
        "threshold": threshold,
        "threshold_probability": float(sigmoid(np.array(threshold / temperature))),
        "tar_there": tar,
        "negatives_there": int((~positive).sum()),
    }


def rates(positive: np.ndarray, accepted: np.ndarray) -> Figures:
    """Return what computes TAR and FAR of decisions `accepted` [n] bool in many resamples."""

    def figures(rows: np.ndarray, weight: np.ndarray) -> dict[str, Measured]:
        found = {}
        for name, kind in (("tar", positive[rows]), ("far", ~positive[rows])):
            total = kind.astype(np.float32) @ weight
            hits = (kind & accepted[rows]).astype(np.float32) @ weight
            found[name] = Measured(share(hits, total)[None], total[None])
        return found

    return figures


def notes(chosen: dict[str, Any], positive: str, where: str) -> list[str]:
    """Return the lines of a report on the threshold."""
    found = [
        f"  threshold: {positive} from a probability of {chosen['threshold_probability']:.4g} on, at which "
        f"{where} has TAR {chosen['tar_there']:.4g} and at most far={chosen['far']:g}"
    ]
    if chosen["negatives_there"] * chosen["far"] < SUPPORT:
        found.append(
            f"note: {where} has {chosen['negatives_there']} negatives: a threshold of far={chosen['far']:g} "
            f"rests on fewer than {SUPPORT} false accepts"
        )
    return found
