"""`rostro predict` on loose images, side by side with loops of PIL and a forward pass.

`python bench/predict.py` makes photo-like JPEGs of a megapixel, and a run of the job `gender` with the small
backbone at 112 pixels (initial weights). All sides read the files, take the centre square, and run the same
network: ours, which also writes predictions.csv, and one loop in batches of 64; another loop image by image.
Decoding alone is timed as well. Rounds are interleaved, figures are
ratios of medians. Prints one table and one JSON line; exit code 1 where a bar is missed. `clock=cpu` judges
seconds of the CPU, for a machine with other work to do: threads then gain nothing.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.support.figures import medians
from data_shards.sampling.view import View
from hpc.inference import loose
from hpc.inference.predict import predict
from hpc.inference.predictor import BATCH, Predictor, load_run
from launch.options.compose import composed
from launch.options.key_value import parse
from launch.options.option import Option
from tests.support.judged import judged_run
from tests.support.sets import pack_faces
from tests.support.small_set import jpeg, photo

WIDTH, HEIGHT, SIZE = 1200, 900, 112
DISTINCT = 40  # images; the others are copies of them under other names
TASK = ("task=gender", "task.backbone=small", "task.width=0")
BARS = {"predict / PIL loop": 2.5, "predict / PIL loop by image": 3.0, "decoding / PIL": 3.0}
OPTIONS = {
    "files": Option(2000, "images", least=BATCH),
    "rounds": Option(3, "interleaved", least=1),
    "clock": Option("wall", "what is timed", choices=("wall", "cpu")),
}


def make_files(folder: Path, count: int) -> list[Path]:
    """Write `count` JPEGs of WIDTH x HEIGHT."""
    folder.mkdir()
    blobs = [jpeg(photo(number, WIDTH, HEIGHT)) for number in range(min(count, DISTINCT))]
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(blobs[number % len(blobs)])
    return paths


def pil_square(path: Path) -> np.ndarray:
    """Decode as most scripts do."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.BILINEAR))


def pil_decode(paths: Sequence[Path]) -> None:
    for path in paths:
        pil_square(path)


def pil_loop(model: Predictor, paths: Sequence[Path], batch: int) -> None:
    for start in range(0, len(paths), batch):
        model.predict(np.stack([pil_square(path) for path in paths[start : start + batch]]))


def our_decode(folder: Path, files: Sequence[str]) -> None:
    threads = len(os.sched_getaffinity(0))
    for _ in loose.LooseBlocks(folder, files, view=View((SIZE, SIZE)), block=BATCH, threads=threads):
        pass


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def main(argv: Sequence[str]) -> int:
    keys = parse(argv, OPTIONS)
    clock = time.process_time if keys.clock == "cpu" else time.perf_counter
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        paths = make_files(place / "images", keys.files)
        run = judged_run(place / "run", pack_faces(place / "set", "gender"), task=composed(TASK).task)
        model = load_run(run, checkpoint="last")
        model.config.data.size = SIZE
        names = [path.name for path in paths]
        variants: dict[str, Callable[[], object]] = {
            "PIL loop": lambda: pil_loop(model, paths, BATCH),
            "PIL loop by image": lambda: pil_loop(model, paths, 1),
            "predict": lambda: predict(model, place / "images", place / "out"),
            "PIL": lambda: pil_decode(paths),
            "decoding": lambda: our_decode(place / "images", names),
        }
        pil_decode(paths)  # the files come into the page cache
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(keys.rounds):
            for name, call in variants.items():
                seconds[name].append(timed(call, clock))
    middle = medians(seconds)
    ratios = {
        "predict / PIL loop": middle["PIL loop"] / middle["predict"],
        "predict / PIL loop by image": middle["PIL loop by image"] / middle["predict"],
        "decoding / PIL": middle["PIL"] / middle["decoding"],
    }
    for name, value in middle.items():
        print(f"{name:<18} {value:8.2f} s  {keys.files / value:8.1f} images/s ({keys.clock})")
    for name, ratio in ratios.items():
        print(f"{name:<28} {ratio:5.2f}  bar {BARS[name]}")
    print(json.dumps({"ratios": ratios, "seconds": middle, "files": keys.files, "clock": keys.clock}))
    return int(any(ratios[name] < bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
