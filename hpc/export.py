"""A run's network as files that need nothing of this suite: safetensors, a JSON card, ONNX.

The card says where the network comes from and how pictures must be prepared; its weights load into the plain
modules of `models/`. Files are written under temporary names and renamed, the card last.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.files import write_bytes
from data_shards.manifest import read_manifest
from hpc import tensorfile
from hpc.errors import UserError
from hpc.predict import Predictor
from hpc.rundir import read_json, write_json

OPSET = 18


class Exported(nn.Module):
    """The task's prediction as one module: [n, 3, h, w] in [-1, 1] -> a tuple in the order of `names`."""

    def __init__(self, model: Predictor, example: Tensor) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(model.nets)
        self.task = model.task
        with torch.no_grad():
            self.names = tuple(self.task.predict(model.nets, example))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.task.predict(dict(self.nets.items()), images)
        return tuple(found[name] for name in self.names)


def export(model: Predictor, out: Path, *, onnx: bool) -> list[Path]:
    """Write the network to the folder `out`; return the files."""
    weights, card, graph = (out / name for name in ("model.safetensors", "model.json", "model.onnx"))
    written = [weights]
    content = describe(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(weights, b"".join(tensorfile.encode(_tensors(model))))
        if onnx:
            content["onnx"] = _write_onnx(model, graph)
            written.append(graph)
        write_json(card, content)
    except OSError as error:
        raise UserError(
            f"out={out}: {error.strerror or error}: give a folder with space that you may write"
        ) from None
    return [*written, card]


def _tensors(model: Predictor) -> dict[str, Tensor]:
    """Names as in the module; with several players, `<player>.` before them."""
    alone = len(model.nets) == 1
    return {
        (name if alone else f"{player}.{name}"): tensor.detach().cpu().contiguous().clone()
        for player, net in model.nets.items()
        for name, tensor in net.state_dict().items()
    }


def _write_onnx(model: Predictor, path: Path) -> dict[str, Any]:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"onnx=true needs {error.name}: pip install 'rostro[onnx]', or type onnx=false"
        ) from None
    size = model.config.data.size
    example = torch.zeros(
        2, 3, size, size, device=next(iter(model.nets.values())).parameters().__next__().device
    )
    module = Exported(model, example).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(module.names),
            dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}},
        )
    assert program is not None  # None only with dynamo=False
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        onnx.save(program.model_proto, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return {"opset": OPSET, "input": ["images", ["n", 3, size, size]], "outputs": list(module.names)}


def describe(model: Predictor) -> dict[str, Any]:
    """The card: what the network is, what it saw, how to prepare pictures, how good it is."""
    config = model.config
    threshold = read_json(model.run / "threshold.json")
    reports = sorted(model.run.glob("evaluations/*/report.json"))
    return {
        "format": 1,
        "run": model.run.name,
        "task": config.task,
        "players": {name: type(net).__name__ for name, net in model.nets.items()},
        "checkpoint": {"images": model.clock, "weights": model.weights, "updates": model.meta.get("updates")},
        "preprocessing": {
            "size": config.data.size,
            "crop": "centre square",
            "resize": "area",
            "colour": "RGB",
            "layout": "n, channels, height, width",
            "range": [-1.0, 1.0],
            "from_8_bit": "x / 127.5 - 1",
        },
        "score": model.unit,
        "metrics": model.meta.get("metrics", {}),
        "evaluations": [found for path in reports if (found := _figures(path, model))],
        "threshold": _matching(threshold, model),
        "data": _data(config.data.train),
    }


def _matching(found: dict[str, Any], model: Predictor) -> dict[str, Any] | None:
    same = (found.get("checkpoint"), found.get("weights")) == (model.clock, model.weights)
    return found if same else None


def _figures(path: Path, model: Predictor) -> dict[str, Any] | None:
    report = read_json(path)
    if _matching(report, model) is None:
        return None
    return {key: report[key] for key in ("set", "split", "manifest_sha256", "trial")} | report["rows"][0]


def _data(folder: str) -> dict[str, Any]:
    """The passport of the training set; `missing` says why there is none (a stream, a set that moved)."""
    try:
        manifest, digest = read_manifest(Path(folder))
    except UserError as error:
        return {"folder": folder, "missing": str(error)}
    kept = ("name", "source", "licence", "split", "samples", "identities")
    return {key: manifest.get(key) for key in kept} | {"manifest_sha256": digest}
