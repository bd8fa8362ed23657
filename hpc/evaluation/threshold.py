"""Keeps the threshold that a run's validation people chose, in RUN/threshold.json for `rostro verify`.

It serves the checkpoint and the weights that it was made with, and no others.
"""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_shards.files import SEAL, FileError, MissingFile, is_sealed, read_json, seal, write_json
from data_shards.shard_format.shard_set import ShardSet
from hpc.metrics.verification import VerificationResult

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor

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
    model: "Predictor", shards: ShardSet, note: dict[str, Any], verdict: VerificationResult
) -> dict[str, Any]:
    """Compose what is kept: the threshold of equal errors, and the network and people that it belongs to."""
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
    """Read the kept threshold; None without one. Raises FileError where it is not what was kept."""
    remedy = "delete it: `rostro evaluate` finds it anew"
    try:
        kept: dict[str, Any] = read_json(run / NAME, SCHEMA, remedy=remedy)
    except MissingFile:
        return None
    if SEAL in kept and not is_sealed(kept):  # earlier versions wrote no hash
        raise FileError(f"{run / NAME} does not match its own hash: {remedy}")
    return {key: value for key, value in kept.items() if key != SEAL}


def stored(model: "Predictor") -> dict[str, Any] | None:
    """Return the kept threshold where it belongs to this checkpoint and these weights, else None."""
    kept = read(model.run)
    if kept is None:
        return None
    same = (kept["checkpoint"], kept["weights"]) == (model.clock, model.weights)
    return kept if same else None


def keep(run: Path, record: dict[str, Any]) -> None:
    """Write the threshold of `record`; warn on stderr where it replaces another one."""
    before = None
    with contextlib.suppress(FileError):  # a damaged one is replaced
        before = read(run)
    if before and any(before[key] != record[key] for key in ("checkpoint", "weights", "manifest_sha256")):
        print(f"warning: {NAME}: {_in_words(before)} is replaced by {_in_words(record)}", file=sys.stderr)
    write_json(run / NAME, seal(record))


def _in_words(record: dict[str, Any]) -> str:
    people = " ".join(filter(None, (record["set"], record["split"])))
    return f"{record['threshold']:.4f} ({people}, {record['checkpoint']:,} images, {record['weights']})"


def rates(scores: np.ndarray, same: np.ndarray, threshold: float) -> dict[str, float]:
    """Compute the shares of errors, in [0, 1], of the pairs at `threshold`. `scores`, `same` bool: [n]."""
    accepted = scores >= threshold
    far, frr = float(accepted[~same].mean()), float((~accepted[same]).mean())
    return {"false_accepts": far, "false_rejects": frr, "accuracy": 1 - (far + frr) / 2}
