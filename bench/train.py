"""The trainer against a bare torch loop, and a step with data against the slower of data and compute.

`python bench/train.py` packs small random images, then times in interleaved rounds: a bare loop (same
network, loss, optimizer and batch; nothing else), `Trainer.step` on that one batch in memory, `Trainer.step`
with the real loader, and the loader alone. One rank, one thread. Bars: trainer <= 1.03 x bare loop; step with
data <= 1.1 x the slower of step and data. Prints one table and one JSON line; exit code 1 where a bar is
missed.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import simplejpeg
import torch

from data_shards.batch import Batch
from hpc.config.parse import save_config
from hpc.config.schema import Config, Data, Ema, Optim
from hpc.distributed.comm import Comm
from hpc.losses.pairs import contrastive, form_pairs
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from launch.commands import pack
from models.backbones import build_trunk
from models.siamese import SiameseNet

BARS = {"trainer / bare loop": 1.03, "step with data / slower of both": 1.1}
TASK = {"name": "siamese", "trunk": "googlenet", "embedding": 128, "loss": "contrastive"}
BATCH, SIZE = 32, 64


def make_set(folder: Path) -> Path:
    """Pack 40 identities of 8 noisy images, 112 pixels."""
    for identity in range(40):
        place = folder / "pictures" / f"person{identity:02d}"
        place.mkdir(parents=True)
        draw = np.random.default_rng(identity)
        base = cv2.resize(draw.uniform(0, 255, (6, 6, 3)), (112, 112), interpolation=cv2.INTER_CUBIC)
        for number in range(8):
            image = np.clip(base + draw.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
            (place / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=95))
    words = [f"src={folder / 'pictures'}", f"out={folder / 'shards'}", "source=folder", "workers=1"]
    if pack.main(words):
        raise SystemExit("the bench's images could not be packed")
    return folder / "shards" / "train"


def make_trainer(folder: Path, train: Path) -> Trainer:
    data = Data(train=str(train), size=SIZE, order="groups", backend="host", threads=1)
    task = TASK | {"margin": 1.0, "temperature": 0.1, "mirror": False}
    config = Config(
        images=10**9,
        batch=BATCH,
        precision="fp32",
        data=data,
        optim=Optim(schedule="constant"),
        ema=Ema(half_life=0),
        task=task,
    )
    run = folder / "run"
    run.mkdir()
    save_config(config, run / "config.yaml")
    return Trainer(RunDir(run), Comm())


class OneBatch:
    """A loader that hands out the same batch: what a step costs without data."""

    waited = 0.0

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def next(self) -> Batch:
        return dataclasses.replace(self.batch)


def bare_loop(batch: Batch) -> Callable[[], None]:
    """Run one step of the plainest loop."""
    torch.manual_seed(0)
    trunk, features = build_trunk("googlenet")
    net = SiameseNet(trunk, features, TASK["embedding"]).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    comm = Comm()

    def step() -> None:
        images = (
            batch.images["image"].float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
        )
        optimizer.zero_grad(set_to_none=True)
        pairs = form_pairs(net(images), batch.labels["identity"], batch.ids[:, 0], comm)
        loss = contrastive(pairs, margin=1.0)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def timed(action: Callable[[], object], count: int) -> float:
    """Return the seconds of one call, the mean of `count`."""
    start = time.perf_counter()
    for _ in range(count):
        action()
    return (time.perf_counter() - start) / count


def measure(trainer: Trainer, rounds: int, steps: int) -> dict[str, list[float]]:
    loader = trainer.loader
    fixed = OneBatch(loader.next())
    trainer._ahead = None
    bare = bare_loop(fixed.batch)
    rows: dict[str, list[float]] = {"bare loop": [], "trainer": [], "trainer with data": [], "data alone": []}

    def with_loader(which: object) -> Callable[[], None]:
        def step() -> None:
            trainer.loader = which
            trainer.step()

        return step

    actions = {
        "bare loop": bare,
        "trainer": with_loader(fixed),
        "trainer with data": with_loader(loader),
        "data alone": loader.next,
    }
    for action in actions.values():
        timed(action, 2)
    for _ in range(rounds):
        for name, action in actions.items():
            if name == "data alone":  # what was decoded ahead is free: measure the steady state
                timed(action, trainer.config.data.ahead)
            rows[name].append(timed(action, steps))
    trainer.loader = loader
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer = make_trainer(folder, make_set(folder))
        rows = measure(trainer, options.rounds, options.steps)
        trainer.close()
    medians = {name: statistics.median(values) for name, values in rows.items()}
    # Ratios within a round: the machine's speed drifts between rounds.
    pairs = zip(rows["trainer"], rows["bare loop"], strict=True)
    ratios = {"trainer / bare loop": statistics.median(a / b for a, b in pairs)}
    triples = zip(rows["trainer with data"], rows["trainer"], rows["data alone"], strict=True)
    ratios["step with data / slower of both"] = statistics.median(a / max(b, c) for a, b, c in triples)
    print(
        f"| {'GoogLeNet, batch ' + str(BATCH) + ', ' + str(SIZE) + ' px':<34} | ms a step "
        f"|\n|{'-' * 36}|{'-' * 11}|"
    )
    for name, value in medians.items():
        print(f"| {name:<34} | {1000 * value:9.1f} |")
    for name, value in ratios.items():
        print(f"| {name:<34} | {value:6.3f} (bar {BARS[name]}) |")
    print(json.dumps({"bench": "train", "seconds": medians, "ratios": ratios, "bars": BARS}))
    return int(any(value > BARS[name] for name, value in ratios.items()))


if __name__ == "__main__":
    sys.exit(main())
