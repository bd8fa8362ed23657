"""The threshold of a run: chosen on its validation people, kept in RUN/threshold.json for `rostro verify`.

It serves the checkpoint and the weights that it was made with, and no others.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data_shards.files import MissingFile, read_json
from data_shards.index import ShardSet
from hpc.meters.verification import Verdict
from hpc.predict import Predictor
from hpc.rundir import write_json

NAME = "threshold.json"
SCHEMA = {
    "checkpoint": int,
    "weights": str,
    "set": str,
    "split": (str, None),
    "manifest_sha256": str,
    "threshold": float,
    "eer": float,
}


def record(model: Predictor, shards: ShardSet, note: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """What is kept: the threshold of equal errors, and of which network and people it is."""
    return {
        "checkpoint": model.clock,
        "weights": model.weights,
        "score": model.unit,
        "set": shards.name,
        "split": shards.manifest.get("split"),
        "manifest_sha256": shards.digest,
        "trial": note,
        "threshold": verdict.thresholds["eer"],
        "thresholds": verdict.thresholds,
        "eer": verdict.eer,
    }


def stored(model: Predictor) -> dict[str, Any] | None:
    """The kept threshold, where it is that of this checkpoint and these weights."""
    remedy = "delete it: `rostro evaluate` finds it anew"
    try:
        found: dict[str, Any] = read_json(model.run / NAME, SCHEMA, remedy=remedy)
    except MissingFile:
        return None
    same = (found["checkpoint"], found["weights"]) == (model.clock, model.weights)
    return found if same else None


def keep(run: Path, found: dict[str, Any]) -> None:
    write_json(run / NAME, found)


def rates(scores: np.ndarray, same: np.ndarray, threshold: float) -> dict[str, float]:
    """Errors of the pairs when `threshold` decides."""
    accepted = scores >= threshold
    far, frr = float(accepted[~same].mean()), float((~accepted[same]).mean())
    return {"false_accepts": far, "false_rejects": frr, "accuracy": 1 - (far + frr) / 2}
