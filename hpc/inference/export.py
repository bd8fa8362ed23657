"""Writes a run's network as files that need nothing of this suite: safetensors, a JSON card, ONNX.

The card says where the network comes from and how images must be prepared; the weights load into the plain
modules of `models/`. Files are written under temporary names and renamed, the card last.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.files import write_bytes, write_json
from hpc.checkpoints import safetensors_writer
from hpc.generator import Generator
from hpc.inference.export_card import describe
from hpc.inference.predictor import Predictor

OPSET = 18
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
            self.names = tuple(self.task.graph(model.nets, Batch.of_images(example)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.task.graph(dict(self.nets.items()), Batch.of_images(images))
        return tuple(outputs[name] for name in self.names)


class Made(nn.Module):
    """The images that a generator makes, in [-1, 1] and without noise: [n, d] -> [n, 3, h, w]."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor) -> Tensor:
        return self.generator(latents).float().clamp(-1, 1)


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
    """Write model.onnx, and what else the task has: generator.onnx, or score.onnx and example.py.

    The graph of a task that looks at no images is that of its generator.
    """
    device = next(next(iter(model.nets.values())).parameters()).device
    generator = model.task.generator(model.nets)
    if "images" not in model.task.takes:
        assert generator is not None
        return _write_generator(generator, out / "model.onnx", device), [out / "model.onnx"]
    facts, files = _write_predictions(model, out, device)
    if generator is not None:
        files.append(out / "generator.onnx")
        facts["generator"] = {"graph": "generator.onnx"} | _write_generator(generator, files[-1], device)
    return facts, files


def _write_generator(generator: Generator, path: Path, device: torch.device) -> dict[str, Any]:
    latents = torch.zeros(2, generator.latents, device=device)
    _write_onnx(Made(generator).eval(), {"latents": latents}, ("image",), path)
    return {"opset": OPSET, "input": ["latents", ["n", generator.latents]], "outputs": ["image"]}


def _write_predictions(
    model: Predictor, out: Path, device: torch.device
) -> tuple[dict[str, Any], list[Path]]:
    size = model.config.data.size
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
            optimize=False,  # it takes the 1e-8 under a root for 0, and drops it
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
