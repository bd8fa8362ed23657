"""`rostro verify`: tell whether two images show the same person."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option("auto", "ema | raw | auto", choices=("ema", "raw", "auto")),
    "json": Option(False, "true: one line of JSON"),
}
HELP = f"""
usage: rostro verify RUN A B [key=value ...]

Compares two images with the siamese network of a run. The verdict uses the threshold that
`rostro evaluate RUN` stored; without one only the score is given. Faces must be cut as in the set that the
run was trained on: model.json of `rostro export RUN` says how.

{option_lines(OPTIONS, {"RUN": "a run directory", "A, B": "two images of any format"})}

example: rostro verify runs/faces a.jpg b.jpg
"""
TASK = "siamese"
LARGEST = 1 << 29  # bytes of a file: more than any format needs for what `images/normalize.py` allows


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run", "a", "b"), required=("run", "a", "b"))
    images = [image(keys.a), image(keys.b)]
    from data_shards.images.pixels import square
    from hpc.inference.predictor import load_run
    from hpc.runs.run_dir import RunDir

    _refuse_other_task(RunDir.open(keys.run))
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    embeddings = model.embed(np.stack([square(pixels, model.config.data.size) for pixels in images]))
    score = float(model.score(embeddings[:1], embeddings[1:])[0])
    answer = {"score": score, "unit": model.unit, "checkpoint": model.clock, "weights": model.weights}
    answer |= verdict(model.run, answer)
    print(json.dumps(answer) if keys.json else sentence(answer))
    return 0


def _refuse_other_task(run: Any) -> None:
    from data_shards.errors import UserError

    task = run.config().task["name"]
    if task != TASK:
        raise UserError(
            f"{run.name} is of task={task}, which compares no faces: use a run of task={TASK}, or "
            f"`rostro predict {run.name}`"
        )


def image(path: str) -> np.ndarray:
    """Read a file as uint8 [h, w, 3] RGB, upright; UserError if it is not a usable image or too large."""
    from data_shards.errors import UserError
    from data_shards.files import read_bytes
    from data_shards.images.normalize import pixels
    from data_shards.images.pixels import Rejected

    remedy = "give an image of a face"
    try:
        content = pixels(read_bytes(path, limit=LARGEST, remedy=remedy))
    except Rejected as error:
        raise UserError(f"{path} is not a usable image ({error}): {remedy}") from None
    return content if content.shape[2] == 3 else content.repeat(3, axis=2)


def verdict(run: Path, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the threshold and the answer, or why there is none: a threshold belongs to one checkpoint."""
    from hpc.evaluation import threshold as threshold_file

    command = f"`rostro evaluate {run}`"
    stored = threshold_file.read(run)
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
    """Return the answer in words."""
    shown = f"{answer['unit']} {answer['score']:.4f}"
    if answer["threshold"] is None:
        return f"{shown} ({answer['why']})"
    said = "same person" if answer["same"] else "different people"
    people = " ".join(filter(None, (answer["set"], answer["split"])))
    threshold = f"threshold {answer['threshold']:.4f} (chosen on {people}, EER {answer['eer']:.3f} there)"
    return f"{said}: {shown}, {threshold}"
