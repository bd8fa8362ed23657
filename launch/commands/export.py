"""`rostro export`: write the network of a run as safetensors, a JSON card, and ONNX."""

import sys
from pathlib import Path

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "out": Option("", "folder to write (default: RUN/export)", placeholder="DIR"),
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option(
        "auto", "ema | raw | auto: the average where the run kept one", choices=("ema", "raw", "auto")
    ),
    "onnx": Option(True, "false: no ONNX files, no example (they need `pip install 'rostro[onnx]'`)"),
}
HELP = f"""
usage: rostro export RUN [key=value ...]

Writes model.safetensors (weights by name), model.json (task, preprocessing, names of classes, metrics, the
training data's manifest hash and licence note) and model.onnx (image -> what the task predicts, any batch
size; where the task looks at no images, latents -> image). Where it does both also generator.onnx (latents ->
image), where it compares embeddings score.onnx (two embeddings -> score) and example.py, which computes the
score of `rostro verify` from them alone.

{option_lines(OPTIONS, {"RUN": "a run directory"})}

example: rostro export runs/faces out=faces-net
"""


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run",))
    from data_shards.files import read_json
    from hpc.inference.export import export
    from hpc.inference.predictor import load_run

    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    files = export(model, Path(keys.out) if keys.out else model.run / "export", onnx=keys.onnx)
    for path in files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    missing = read_json(files[-1], {"data": dict})["data"].get("missing")
    if missing:
        print(
            f"warning: the card has no licence note and no hash of the training data: {missing}",
            file=sys.stderr,
        )
    return 0
