"""Mosaics with affine maps against one warp of torch; the trainer of a detector against a bare loop.

`python bench/mosaic.py` times in interleaved rounds, on one thread: `F.affine_grid` and `F.grid_sample` of a
batch of images, the ops Mosaic and Affine on the same batch with its boxes, a bare loop of YOLOv5n on a batch
in memory, and `Trainer.step` on that batch. CPU seconds. Bars: mosaic + affine <= 2.2 x one warp; trainer
<= 1.03 x bare loop. Prints two tables and one JSON line; exit code 1 where a bar is missed.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F

from bench.support.figures import Rows, arguments, medians, ratio, show
from bench.support.steps import Action, first_batch, make_trainer, step_on
from data_shards.batch import Batch
from data_shards.ops.affine import Affine
from data_shards.ops.base import run_ops
from data_shards.ops.mosaic import Mosaic
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.ragged import Ragged
from data_shards.sources.registry import open_source, source_module
from hpc.config.schema import Config
from hpc.losses.assignment import Targets
from hpc.losses.detection import Gains, detection_loss
from launch.options.compose import composed
from models.yolov5 import YOLOv5

BARS = {"mosaic + affine / one warp": 2.2, "trainer / bare loop": 1.03}
IMAGES, SIDE, BOXES = 16, 320, 10
BATCH, SEEN = 8, 160


def ops_actions() -> dict[str, Action]:
    """Return one warp by torch, and the two ops with boxes, on the same images."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(IMAGES, 3, SIDE, SIDE, generator=draw) * 2 - 1
    low = torch.rand(IMAGES * BOXES, 2, generator=draw) * (SIDE - 60)
    boxes = Ragged(torch.cat([low, low + 40], 1), np.arange(0, IMAGES * BOXES + 1, BOXES))
    positions = torch.arange(IMAGES)
    kinds = {"image": "image", "boxes": "boxes"}
    batch = Batch({"image": images}, {"boxes": boxes}, positions[:, None], positions, kinds=kinds)
    ops = [Mosaic(scale=(0.5, 1.5), unit=8), Affine(degrees=5.0, scale=(0.8, 1.2), shift=0.1)]
    theta = torch.tensor([[[0.9, 0.1, 0.1], [-0.1, 0.9, 0.0]]]).repeat(IMAGES, 1, 1)

    def warp() -> object:
        grid = F.affine_grid(theta, [*images.shape], align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    return {"one warp": warp, "mosaic + affine": lambda: run_ops(ops, batch)}


def config_of(train: Path) -> Config:
    """The job of faces, without what the bare loop does not do: ops, an average, a schedule."""
    words = ["task=yolov5x_widerface", "images=1_000_000_000", f"batch={BATCH}", "precision=fp32"]
    words += [f"data.train={train}", "data.backend=host", "data.threads=1", f"data.size={SEEN}"]
    words += ["optim.schedule=constant", "optim.warmup=0", "optim.warmup_momentum=0.0", "ema.half_life=0"]
    words += ["optim.warmup_bias=0.0", "task.model=n", "task.anchors=published"]
    nothing = ("mosaic", "mixup", "shift", "hue", "saturation", "value")
    return composed([*words, *(f"task.augment.{name}=0.0" for name in nothing)])


def bare_loop(batch: Batch) -> Action:
    """Run one step of the plainest loop."""
    torch.manual_seed(0)
    net = YOLOv5("n", classes=1).train()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 5e-4}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.937, nesterov=True, fused=True)
    gains = Gains().scaled(scales=3, classes=1, side=SEEN)
    boxes, classes, flags = (batch.labels[name] for name in ("boxes", "box_class", "box_flags"))
    owners = torch.from_numpy(boxes.owners)
    targets = Targets(boxes.rows, classes.rows, flags.rows[:, 0] == 1, owners)

    def step() -> None:
        pixels = batch.images["image"].float().div_(127.5).sub_(1)
        optimizer.zero_grad(set_to_none=True)
        maps = net(pixels.contiguous(memory_format=torch.channels_last))
        found = detection_loss(maps, targets, net.anchors, net.strides, classes=1, gains=gains, unit=BATCH)
        (found.total * BATCH).backward()
        optimizer.step()
        found.total.item()

    return step


def timed(actions: Mapping[str, Action], *, rounds: int, times: int) -> Rows:
    """Return the CPU seconds of each action in each round, in turn; one unmeasured run comes first."""
    rows: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.process_time()
            for _ in range(times):
                action()
            rows[name].append((time.process_time() - start) / times)
    return rows


def main() -> int:
    options = arguments(__doc__, rounds=9, times=4)
    torch.set_num_threads(1)
    keys = {"rounds": options.rounds, "times": options.times}
    ops = timed(ops_actions(), **keys)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = source_module("scenes").OPTIONS | {"scenes": 24, "side": SEEN}
        pack(open_source("scenes", "", options=drawn), folder / "set", Request(options=drawn), workers=1)
        trainer = make_trainer(config_of(folder / "set" / "train"), folder / "run")
        loader, fixed = trainer.loader, first_batch(trainer)
        steps = timed({"bare loop": bare_loop(fixed.batch), "trainer": step_on(trainer, fixed)}, **keys)
        trainer.loader = loader
        trainer.close()
    ratios = {
        "mosaic + affine / one warp": ratio(ops, "mosaic + affine", "one warp"),
        "trainer / bare loop": ratio(steps, "trainer", "bare loop"),
    }
    passed = True
    heads = (f"{IMAGES} images of {SIDE} px", ops), (f"YOLOv5n, batch {BATCH}, {SEEN} px", steps)
    for (head, rows), name in zip(heads, BARS, strict=True):
        passed &= show(head, medians(rows), {name: ratios[name]}, {name: BARS[name]})
    print(json.dumps({"bench": "mosaic", "ratios": ratios, "bars": BARS}))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
