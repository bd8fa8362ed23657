"""The threshold of a run: chosen on its validation people, kept in RUN/threshold.json for `rostro verify`.

It serves the checkpoint and the weights that it was made with, and no others.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.files import SEAL, FileError, MissingFile, is_sealed, read_json, seal, write_json
from data_shards.shard_format.shard_set import ShardSet
from hpc.inference.predictor import Predictor
from hpc.metrics.verification import VerificationResult

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


def record(
    model: Predictor, shards: ShardSet, note: dict[str, Any], verdict: VerificationResult
) -> dict[str, Any]:
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


def read(run: Path) -> dict[str, Any] | None:
    """The kept threshold; None where there is none. Raises FileError where it is not what was kept."""
    remedy = "delete it: `rostro evaluate` finds it anew"
    try:
        found: dict[str, Any] = read_json(run / NAME, SCHEMA, remedy=remedy)
    except MissingFile:
        return None
    if SEAL in found and not is_sealed(found):  # earlier versions wrote no hash
        raise FileError(f"{run / NAME} does not match its own hash: {remedy}")
    return {key: value for key, value in found.items() if key != SEAL}


def stored(model: Predictor) -> dict[str, Any] | None:
    """The kept threshold, where it is that of this checkpoint and these weights."""
    found = read(model.run)
    if found is None:
        return None
    same = (found["checkpoint"], found["weights"]) == (model.clock, model.weights)
    return found if same else None


def keep(run: Path, found: dict[str, Any]) -> None:
    """Write the threshold down; on stderr what other one it replaces."""
    before = None
    with contextlib.suppress(FileError):  # a damaged one is replaced
        before = read(run)
    if before and any(before[key] != found[key] for key in ("checkpoint", "weights", "manifest_sha256")):
        print(f"warning: {NAME}: {_told(before)} is replaced by {_told(found)}", file=sys.stderr)
    write_json(run / NAME, seal(found))


def _told(found: dict[str, Any]) -> str:
    people = " ".join(filter(None, (found["set"], found["split"])))
    return f"{found['threshold']:.4f} ({people}, {found['checkpoint']:,} images, {found['weights']})"


def rates(scores: np.ndarray, same: np.ndarray, threshold: float) -> dict[str, float]:
    """Errors of the pairs when `threshold` decides."""
    accepted = scores >= threshold
    far, frr = float(accepted[~same].mean()), float((~accepted[same]).mean())
    return {"false_accepts": far, "false_rejects": frr, "accuracy": 1 - (far + frr) / 2}
