"""Writes a run's network as files that need nothing of this suite: safetensors, a JSON card, ONNX.

The card says where the network comes from and how images must be prepared; the weights load into the plain
modules of `models/`. Files are written under temporary names and renamed, the card last.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_json, write_bytes, write_json
from data_shards.images.pixels import KERNEL
from data_shards.shard_format.manifest import read_manifest
from hpc.checkpoints import safetensors_writer
from hpc.config import held_out
from hpc.evaluation import chosen, threshold
from hpc.inference.names import learn_names
from hpc.inference.predictor import Predictor
from hpc.runs.run_dir import RunDir

OPSET = 18
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
EXAMPLE = '''"""python example.py A B: the score of two images, by numpy, OpenCV and ONNX Runtime alone."""
import json, sys
from pathlib import Path
import cv2, numpy as np, onnxruntime

HERE = Path(__file__).parent
card = json.loads((HERE / "model.json").read_text())
net, compare = (onnxruntime.InferenceSession(HERE / name) for name in ("model.onnx", "score.onnx"))

def embedding(path):
    image = cv2.imread(path)[:, :, ::-1]  # RGB, upright
    (height, width), size = image.shape[:2], card["preprocessing"]["size"]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    kernel = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    pixels = cv2.resize(square, (size, size), interpolation=kernel).astype("float32") / 127.5 - 1
    return net.run(["embedding"], {"images": pixels.transpose(2, 0, 1)[None]})[0]

score = float(compare.run(["score"], dict(zip("ab", map(embedding, sys.argv[1:3]))))[0][0])
known = card["threshold"]
verdict = "" if known is None else "same person" if score >= known["threshold"] else "different people"
print(f"{score:.6f}", verdict)
'''


class Exported(nn.Module):
    """The task's prediction as one module: [n, 3, h, w] in [-1, 1] -> a tuple in the order of `names`."""

    def __init__(self, model: Predictor, example: Tensor) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(model.nets)
        self.task = model.task
        with torch.no_grad():
            self.names = tuple(self.task.predict(model.nets, Batch.of_images(example)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.task.predict(dict(self.nets.items()), Batch.of_images(images))
        return tuple(outputs[name] for name in self.names)


def export(model: Predictor, out: Path, *, onnx: bool) -> list[Path]:
    """Write the network to the folder `out`; return the files."""
    weights, card = out / "model.safetensors", out / "model.json"
    written = [weights]
    content = describe(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(weights, b"".join(safetensors_writer.encode(_tensors(model))))
        if onnx:
            content["onnx"], graphs = _write_graphs(model, out)
            written += graphs
        write_json(card, content)
    except OSError as error:
        raise UserError(
            f"out={out}: {error.strerror or error}: give a folder with space that you may write"
        ) from None
    return [*written, card]


def _tensors(model: Predictor) -> dict[str, Tensor]:
    """Return the tensors by their names in the module; with several players, `<player>.` before them."""
    alone = len(model.nets) == 1
    return {
        (name if alone else f"{player}.{name}"): tensor.detach().cpu().contiguous().clone()
        for player, net in model.nets.items()
        for name, tensor in net.state_dict().items()
    }


def _write_graphs(model: Predictor, out: Path) -> tuple[dict[str, Any], list[Path]]:
    """Write model.onnx and, where the task compares embeddings, score.onnx and example.py."""
    size = model.config.data.size
    device = next(next(iter(model.nets.values())).parameters()).device
    images = torch.zeros(2, 3, size, size, device=device)
    module = Exported(model, images).eval()
    _write_onnx(module, {"images": images}, module.names, out / "model.onnx")
    facts = {"opset": OPSET, "input": ["images", ["n", 3, size, size]], "outputs": list(module.names)}
    scorer = model.task.scorer(model.nets)
    if scorer is None:
        return facts, [out / "model.onnx"]
    with torch.no_grad():
        embeddings = model.task.predict(model.nets, Batch.of_images(images))["embedding"]
    _write_onnx(scorer.eval(), {"a": embeddings, "b": embeddings.clone()}, ("score",), out / "score.onnx")
    facts["score"] = {
        "graph": "score.onnx",
        "inputs": {name: ["n", embeddings.shape[1]] for name in "ab"},
        "outputs": ["score"],
        "unit": model.unit,
        "example": "example.py",
    }
    write_bytes(out / "example.py", EXAMPLE.encode())
    return facts, [out / name for name in ("model.onnx", "score.onnx", "example.py")]


def _write_onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], path: Path) -> None:
    """Write `module` as an ONNX graph for any number of rows."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"onnx=true needs {error.name}: pip install 'rostro[onnx]', or type onnx=false"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        rows = torch.export.Dim("n", min=1)
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: {0: rows} for name in inputs},
        )
    assert program is not None  # None only with dynamo=False
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        onnx.save(program.model_proto, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        "preprocessing": {
            "size": config.data.size,
            "crop": CROPS[config.data.fit],
            "resize": KERNEL,
            "faces": _faces(data),
            "colour": "RGB",
            "layout": "n, channels, height, width",
            "range": [-1.0, 1.0],
            "from_8_bit": "x / 127.5 - 1",
        },
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
    return {name: list(field.names) for name, field in fields.items() if field is not None and field.names}


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
