"""`rostro verify`: are two pictures of the same person?"""

import json
from pathlib import Path
from typing import Any

from launch.args import parse

HELP = """
usage: rostro verify RUN A B [key=value ...]

Compares two pictures with the siamese network of a run. The verdict uses the threshold that
`rostro evaluate RUN` stored; without one only the score is given. The face must be centred, as in training.

  RUN                 a run directory
  A, B                two pictures of any format
  checkpoint=best     best | last | a clock
  weights=auto        ema | raw | auto
  json=false          true: one line of JSON

example: rostro verify runs/faces a.jpg b.jpg
"""
SPEC = {"checkpoint": "best", "weights": "auto", "json": False}


def main(argv: list[str]) -> int:
    keys = parse(argv, SPEC, positional=("run", "a", "b"), required=("run", "a", "b"))
    blobs = [picture(keys.a), picture(keys.b)]
    from data_shards.loader import decode_pictures
    from hpc.predict import load_run

    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    found = model.embed(decode_pictures(blobs, model.config.data.size))
    score = float(model.score(found[:1], found[1:])[0])
    answer = {"score": score, "unit": model.unit, "checkpoint": model.clock, "weights": model.weights}
    answer |= verdict(model.run, answer)
    print(json.dumps(answer) if keys.json else sentence(answer))
    return 0


def picture(path: str) -> bytes:
    """The picture as a JPEG with its rotation applied; UserError where it is none."""
    from data_shards.errors import UserError
    from data_shards.pictures import Rejected, normalise

    try:
        return normalise(Path(path).read_bytes()).jpeg
    except (OSError, Rejected) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} is no usable picture ({reason}): give a picture of a face") from None


def verdict(run: Path, answer: dict[str, Any]) -> dict[str, Any]:
    """Threshold and answer, or why there is none: a threshold serves the checkpoint it was made with."""
    from hpc.rundir import read_json

    command = f"`rostro evaluate {run}`"
    stored = read_json(run / "threshold.json")
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
    }


def sentence(answer: dict[str, Any]) -> str:
    shown = f"{answer['unit']} {answer['score']:.4f}"
    if answer["threshold"] is None:
        return f"{shown} ({answer['why']})"
    said = "same person" if answer["same"] else "different people"
    return (
        f"{said}: {shown}, threshold {answer['threshold']:.4f} (EER {answer['eer']:.3f} on {answer['set']})"
    )
