"""Keeps what the evaluators of a run chose on val, in RUN/chosen.json for `rostro predict`.

A temperature, and the threshold of a decision between two classes. It serves the checkpoint and the weights
that it was made with, and no others, as `threshold.py` does for pairs.
"""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.files import SEAL, FileError, MissingFile, is_sealed, read_json, seal, write_json

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor

NAME = "chosen.json"
SCHEMA = {
    "checkpoint": int,
    "weights": str,
    "set": str,
    "split": (str, None),
    "manifest_sha256": str,
    "evaluators": {str: {str: float}},
}
REMEDY = "delete it: `rostro evaluate` chooses anew"


def read(run: Path) -> dict[str, Any] | None:
    """Read what is kept; None without a file. Raises FileError where it is not what was kept."""
    try:
        kept: dict[str, Any] = read_json(run / NAME, SCHEMA, remedy=REMEDY)
    except MissingFile:
        return None
    if not is_sealed(kept):
        raise FileError(f"{run / NAME} does not match its own hash: {REMEDY}")
    return {key: value for key, value in kept.items() if key != SEAL}


def stored(model: "Predictor") -> dict[str, Any] | None:
    """Return what is kept where it belongs to this checkpoint and these weights, else None."""
    kept = read(model.run)
    same = kept and (kept["checkpoint"], kept["weights"]) == (model.clock, model.weights)
    return kept if same else None


def keep(model: "Predictor", shards: Any, evaluators: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep what was chosen on `shards`, by evaluator; warn on stderr where it replaces another choice."""
    record = {
        "checkpoint": model.clock,
        "weights": model.weights,
        "set": shards.name,
        "split": shards.manifest.get("split"),
        "manifest_sha256": shards.digest,
        "evaluators": {name: dict(chosen) for name, chosen in evaluators.items()},
    }
    before = None
    with contextlib.suppress(FileError):  # a damaged one is replaced
        before = read(model.run)
    if before and before != record:
        print(f"warning: {NAME}: {in_words(before)} is replaced by {in_words(record)}", file=sys.stderr)
    write_json(model.run / NAME, seal(record))


def in_words(record: Mapping[str, Any]) -> str:
    """Return what is kept, in a line."""
    parts = []
    for name, chosen in record["evaluators"].items():
        words = [f"temperature {chosen['temperature']:.4g}"] if "temperature" in chosen else []
        if "threshold" in chosen:
            words.append(f"threshold {chosen['threshold_probability']:.4g} (far={chosen['far']:g})")
        if "score" in chosen:
            words.append(f"objects of a score of {chosen['score']:.4g} or more")
        parts.append(f"{name}: {', '.join(words) or 'nothing'}")
    place = " ".join(filter(None, (record["set"], record["split"])))
    return f"{'; '.join(parts)} ({place}, {record['checkpoint']:,} images, {record['weights']})"
