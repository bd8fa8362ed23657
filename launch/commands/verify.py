"""`rostro verify`: are two pictures of the same person?"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from launch.options.key_value import parse

HELP = """
usage: rostro verify RUN A B [key=value ...]

Compares two pictures with the siamese network of a run. The verdict uses the threshold that
`rostro evaluate RUN` stored; without one only the score is given. Faces must be cut as in the set that the
run was trained on: model.json of `rostro export RUN` says how.

  RUN                 a run directory
  A, B                two pictures of any format
  checkpoint=best     best | last | a clock
  weights=auto        ema | raw | auto
  json=false          true: one line of JSON

example: rostro verify runs/faces a.jpg b.jpg
"""
LARGEST = 1 << 29  # bytes of a file: more than any format needs for what `pictures.LARGEST` allows
SPEC = {"checkpoint": "best", "weights": "auto", "json": False}


def main(argv: list[str]) -> int:
    keys = parse(argv, SPEC, positional=("run", "a", "b"), required=("run", "a", "b"))
    pictures = [picture(keys.a), picture(keys.b)]
    from data_shards.images.pixels import square
    from hpc.inference.predictor import load_run

    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    found = model.embed(np.stack([square(pixels, model.config.data.size) for pixels in pictures]))
    score = float(model.score(found[:1], found[1:])[0])
    answer = {"score": score, "unit": model.unit, "checkpoint": model.clock, "weights": model.weights}
    answer |= verdict(model.run, answer)
    print(json.dumps(answer) if keys.json else sentence(answer))
    return 0


def picture(path: str) -> np.ndarray:
    """uint8 [h, w, 3] RGB, upright; UserError for what is not a picture, not a regular file, or too large."""
    from data_shards.errors import UserError
    from data_shards.files import read_bytes
    from data_shards.images.normalize import pixels
    from data_shards.images.pixels import Rejected

    remedy = "give a picture of a face"
    try:
        found = pixels(read_bytes(path, limit=LARGEST, remedy=remedy))
    except Rejected as error:
        raise UserError(f"{path} is not a usable picture ({error}): {remedy}") from None
    return found if found.shape[2] == 3 else found.repeat(3, axis=2)


def verdict(run: Path, answer: dict[str, Any]) -> dict[str, Any]:
    """Threshold and answer, or why there is none: a threshold serves the checkpoint it was made with."""
    from hpc.inference import threshold as kept

    command = f"`rostro evaluate {run}`"
    stored = kept.read(run)
    if not stored:
        return {"threshold": None, "same": None, "why": f"no threshold yet: {command} finds it"}
    if (stored["checkpoint"], stored["weights"]) != (answer["checkpoint"], answer["weights"]):
        made = f"checkpoint {stored['checkpoint']} ({stored['weights']})"
        now = f"checkpoint={answer['checkpoint']} weights={answer['weights']}"
        return {
            "threshold": None,
            "same": None,
            "why": f"the threshold is of {made}: run {command[:-1]} {now}`",
        }
    threshold = stored["threshold"]
    return {
        "threshold": threshold,
        "same": answer["score"] >= threshold,
        "eer": stored["eer"],
        "set": stored["set"],
        "split": stored["split"],
    }


def sentence(answer: dict[str, Any]) -> str:
    shown = f"{answer['unit']} {answer['score']:.4f}"
    if answer["threshold"] is None:
        return f"{shown} ({answer['why']})"
    said = "same person" if answer["same"] else "different people"
    people = " ".join(filter(None, (answer["set"], answer["split"])))
    return f"{said}: {shown}, threshold {answer['threshold']:.4f} (chosen on {people}, EER {answer['eer']:.3f} there)"
