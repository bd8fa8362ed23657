"""The loader with boxes, mosaics and affine maps, against a mosaic by PIL and numpy in DataLoader workers.

`python bench/mosaic_loader.py` draws scenes of several people and times batches of 16 images with their
boxes: ours, with partners from the slot's own unit (one decode a slot) and with four members of its own (four
decodes); and a torch Dataset that decodes, resizes and pastes four images an item and warps the canvas, in
two workers. All have the same files, sizes and ranges, and end as float CHW. Variants in turn; images per
CPU-second, workers counted. Bar: partners of the unit >= 1.5 x PIL and numpy. Prints one table and one JSON
line; exit code 1 where the bar is missed.
"""

import functools
import io
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from bench.load import timed
from bench.support.figures import arguments, medians_of_columns
from data_shards.loading.loader import TrainLoader
from data_shards.ops.affine import Affine
from data_shards.ops.base import run_ops
from data_shards.ops.mosaic import Mosaic
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.sampling.order import PlainOrder
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source, source_module

BAR = 1.5
SIDE, BATCH, THREADS, STORED, SCENES, GREY = 320, 16, 2, 640, 48, 127
SCALES, DEGREES, SHIFT = (0.5, 1.5), 5.0, 0.1
NAMES = ("boxes", "box_class", "box_flags")

Item = tuple[bytes, np.ndarray]  # the file, and boxes [m, 4] x, y, width, height in its pixels


def ours(shards: ShardSet, members: int) -> Iterator[int]:
    """Yield the images of each prepared batch. members: 1, partners of the unit; 4, the slot's own."""
    loader = TrainLoader(
        PlainOrder(shards, 0, members=members),
        shards,
        seed=0,
        rank=0,
        world=1,
        batch=BATCH,
        view=View((SIDE, SIDE), fit="contain"),
        backend="host",
        threads=THREADS,
        ahead=4,
        fields=NAMES,
        unit=8,
    )
    ops = [Mosaic(scale=SCALES, unit=8, own=members > 1), Affine(degrees=DEGREES, shift=SHIFT)]
    loader.start(0)
    try:
        while True:
            yield len(run_ops(ops, loader.next().prepare(torch.device("cpu"))))
    finally:
        loader.close()


class Mosaics(torch.utils.data.Dataset):
    """The usual way: four images an item, pasted around a junction, then one affine map by PIL."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> tuple[torch.Tensor, np.ndarray]:
        from PIL import Image

        canvas = np.full((SIDE, SIDE, 3), GREY, np.uint8)
        scale = math.exp(random.uniform(*map(math.log, SCALES)))
        centre = [round(random.uniform(0.25, 0.75) * SIDE) for _ in "xy"]
        found = []
        for tile in range(4):
            data, boxes = self.items[(number if tile == 0 else random.getrandbits(30)) % len(self.items)]
            image: Any = Image.open(io.BytesIO(data)).convert("RGB")
            by = scale * SIDE / max(image.size)
            image = image.resize([round(side * by) for side in image.size], Image.Resampling.BILINEAR)
            x = centre[0] - (0 if tile % 2 else image.size[0])
            y = centre[1] - (0 if tile > 1 else image.size[1])
            low = np.array([centre[0] if tile % 2 else 0, centre[1] if tile > 1 else 0])
            high = np.array([SIDE if tile % 2 else centre[0], SIDE if tile > 1 else centre[1]])
            start, end = np.maximum(low, [x, y]), np.minimum(high, np.add([x, y], image.size))
            if (end > start).all():
                part = np.asarray(image)[start[1] - y : end[1] - y, start[0] - x : end[0] - x]
                canvas[start[1] : end[1], start[0] : end[0]] = part
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * by + [x, y, x, y]
            found.append(np.clip(corners, np.tile(low, 2), np.tile(high, 2)))
        return self.warped(Image.fromarray(canvas), np.concatenate(found))

    def warped(self, image: Any, boxes: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        from PIL import Image

        angle = math.radians(random.uniform(-DEGREES, DEGREES))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.array([SIDE, SIDE]) / 2
        shift = np.array([random.uniform(-SHIFT, SHIFT) * SIDE for _ in "xy"])
        back = np.concatenate([turn.T, (middle - turn.T @ (middle + shift))[:, None]], 1)
        size = (SIDE, SIDE)
        image = image.transform(
            size,
            Image.Transform.AFFINE,
            back.ravel().tolist(),
            Image.Resampling.BILINEAR,
            fillcolor=(GREY,) * 3,
        )
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) - middle
        moved = corners @ turn.T + middle + shift
        boxes = np.clip(np.concatenate([moved.min(1), moved.max(1)], 1), 0, SIDE)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 2).all(1)]
        chw = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy((chw - 127.5) / 127.5), boxes


def together(items: list[tuple[torch.Tensor, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join items: images [n, 3, h, w], and boxes [m, 5] with the number of the image first."""
    boxes = [np.insert(boxes, 0, number, axis=1) for number, (_, boxes) in enumerate(items)]
    return torch.stack([image for image, _ in items]), torch.from_numpy(np.concatenate(boxes))


def workers(items: list[Item]) -> Iterator[int]:
    loader = torch.utils.data.DataLoader(
        Mosaics(items), batch_size=BATCH, num_workers=2, prefetch_factor=2, collate_fn=together
    )
    for images, _ in loader:
        yield len(images)


def main() -> int:
    options = arguments(__doc__, rounds=3, images=(192, "timed in each round"))
    torch.set_num_threads(1)
    rows: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        drawn = source_module("scenes").OPTIONS | {"scenes": SCENES, "side": STORED}
        source: Any = open_source("scenes", "", options=drawn)
        pack(source, Path(name, "set"), Request(options=drawn), workers=1)
        shards = ShardSet.open(Path(name, "set", "train"))
        place = list(source.fields).index("boxes")
        items = [
            (source.read(sample)["image"], np.asarray(sample.labels[place], np.float64).reshape(-1, 4))
            for sample in source.samples()
        ]
        variants = {
            "ours, partners of the unit": functools.partial(ours, shards, 1),
            "ours, four members of its own": functools.partial(ours, shards, 4),
            "PIL and numpy, 2 workers": functools.partial(workers, items),
        }
        for _ in range(options.rounds):
            for variant, make in variants.items():
                stream = make()
                rows.setdefault(variant, []).append(timed(stream, options.images))
                stream.close()  # type: ignore[attr-defined]
    found = medians_of_columns(rows)
    partners, own, peer = found.values()
    ratios = {"partners / PIL": partners[1] / peer[1], "own members / PIL": own[1] / peer[1]}
    print("| variant | images/s | images per CPU-second |\n|---|---|---|")
    for variant, (wall, cpu) in found.items():
        print(f"| {variant} | {wall:.1f} | {cpu:.1f} |")
    for ratio_name, value in ratios.items():
        print(f"{ratio_name}: {value:.2f}")
    passed = ratios["partners / PIL"] >= BAR
    print(json.dumps({"bench": "mosaic_loader", "passed": passed, "ratios": ratios, "bar": BAR, **found}))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
