"""The card of an export: what a network is, what it saw, how images must be prepared, how good it is.

`export.py` writes it as model.json, beside the weights.
"""

import sys
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_json
from data_shards.images.pixels import KERNEL
from data_shards.shard_format.manifest import read_manifest
from hpc.config import held_out
from hpc.evaluation import chosen, threshold
from hpc.inference.names import learn_names
from hpc.inference.predictor import Predictor
from hpc.runs.run_dir import RunDir

PIXELS = {"colour": "RGB", "layout": "n, channels, height, width", "range": [-1.0, 1.0]}
REPORT = {
    "checkpoint": int,
    "weights": str,
    "set": str,
    "split": (str, None),
    "manifest_sha256": str,
    "trial?": dict,
    "rows?": [dict],
    "evaluators?": {str: dict},
}
CONVERTED = {"network": str, "file": str, "sha256": str, "reference": str}  # of RUN/converted.json
# What is done to an image that is not square, by data.fit
CROPS = {
    "cover": "centre square",
    "contain": "none: it is padded to a square",
    "stretch": "none: it is squeezed to a square",
}


def describe(model: Predictor) -> dict[str, Any]:
    """Compose the card: what the network is, what it saw, how to prepare images, how good it is."""
    config = model.config
    data = _data(RunDir(model.run), config.data.train)
    reports = sorted(model.run.glob("evaluations/*/report.json"))
    return {
        "format": 1,
        "run": model.run.name,
        "task": config.task,
        "players": {name: type(net).__name__ for name, net in model.nets.items()},
        "checkpoint": {"images": model.clock, "weights": model.weights, "updates": model.meta.get("updates")},
        "preprocessing": _preprocessing(model, data) if "images" in model.task.takes else None,
        "postprocessing": _postprocessing(model),
        "generator": _generator(model),
        "score": model.unit if model.task.scorer(model.nets) is not None else None,
        "evaluators": list(model.task.evaluators),
        "classes": _classes(model),
        "metrics": model.meta.get("metrics", {}),
        "held_out": held_out.statement(config.data),
        "evaluations": [figures for path in reports if (figures := _figures(path, model))],
        "threshold": threshold.stored(model),
        "chosen": chosen.stored(model),  # temperatures and thresholds of classifiers
        "data": data,
    }


def _preprocessing(model: Predictor, data: dict[str, Any]) -> dict[str, Any]:
    """Say how images must be prepared."""
    return {
        "size": model.config.data.size,
        "crop": CROPS[model.config.data.fit],
        "resize": KERNEL,
        "faces": _faces(data),
        **PIXELS,
        "from_8_bit": "x / 127.5 - 1",
    }


def _postprocessing(model: Predictor) -> dict[str, Any] | None:
    """Say how predictions are made of what the network puts out; None where these are the outputs."""
    output = model.task.by_pixel
    if not output:
        return model.task.postprocessing()
    part = {
        "cover": "the centre square of the image, beside which nothing is known",
        "contain": "the whole image, once the padding is cut away",
        "stretch": "the whole image",
    }
    return {
        "output": output,
        "values": "probabilities of the classes, n, classes, height, width",
        "shows": part[model.config.data.fit],
        "resize": "bilinear, to the size of what it shows",
        "mask": "the class of the largest probability of each pixel, 0 for the first",
    }


def _generator(model: Predictor) -> dict[str, Any] | None:
    """Say what latents are, and what images are made of them; None where the task makes none."""
    found = model.task.generator(model.nets)
    if found is None:
        return None
    images = {"size": found.side, **PIXELS, "to_8_bit": "(x + 1) * 127.5"}
    return {"latents": found.latents, "distribution": "standard normal", "images": images}


def _figures(path: Path, model: Predictor) -> dict[str, Any] | None:
    """Return what the card says of a report; None for another checkpoint or, with a warning, if damaged."""
    try:
        report = read_json(path, REPORT, remedy="the card leaves it out; `rostro evaluate` makes it anew")
    except FileError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None
    if (report["checkpoint"], report["weights"]) != (model.clock, model.weights):
        return None
    figures = {key: report[key] for key in ("set", "split", "manifest_sha256", "trial") if key in report}
    figures |= report.get("rows", [{}])[0] if report.get("rows") else {}
    figures["evaluators"] = {
        name: {key: part.get(key) for key in ("scalars", "intervals_95", "chosen")}
        for name, part in report.get("evaluators", {}).items()
    }
    # Reports of older versions do not say it: None.
    return figures | {"chosen_on_these_people": report.get("chosen_on_these_people")}


def _classes(model: Predictor) -> dict[str, list[str]]:
    """Return the names of the classes and bits of the task's fields, by field, where its set is there."""
    learn_names(model)
    fields = {name: model.task.known_fields.get(name) for name in model.task.plan.fields("train")}
    return {
        name: list(field.names)
        for name, field in fields.items()
        if field is not None and field.names and field.kind != "points"
    }


def _data(run: RunDir, folder: str) -> dict[str, Any]:
    """Describe the training set; `missing` says why that is not possible (a stream, a set that moved)."""
    try:
        converted = read_json(run.converted_file, CONVERTED)
        return {"folder": "", "missing": "the weights were trained elsewhere", "converted": converted}
    except MissingFile:
        pass
    try:
        manifest, digest = read_manifest(Path(folder))
    except UserError as error:
        return {"folder": folder, "missing": str(error)}
    keys = ("name", "source", "licence", "split", "samples", "identities", "options")
    return {key: manifest.get(key) for key in keys} | {"manifest_sha256": digest}


def _faces(data: dict[str, Any]) -> str:
    """Say in words how faces must be cut before all else: like those of the training set."""
    if "missing" in data:
        return "cut faces as the images of the training set are, which was not found"
    crop = (data.get("options") or {}).get("crop")
    text = f"cut faces as the training set {data['name']} has them (source {data['source']}"
    return f"{text}, crop={str(crop).lower()})" if crop else f"{text}, images not cut)"
