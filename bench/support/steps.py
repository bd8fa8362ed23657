"""Trainers whose steps are timed, beside other loops: a set, one batch in memory, rounds in turn."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from data_shards.batch import Batch
from hpc.config.parse import save_config
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from launch.commands import pack

Action = Callable[[], object]


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


def make_trainer(config: Config, run: Path) -> Trainer:
    """Make the trainer of one rank, in a run directory of its own."""
    run.mkdir(parents=True)
    save_config(config, run / "config.yaml")
    return Trainer(RunDir(run), Comm())


class OneBatch:
    """A loader that hands out the same batch: what a step costs without data."""

    waited = 0.0

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def next(self) -> Batch:
        return dataclasses.replace(self.batch)


def first_batch(trainer: Trainer) -> OneBatch:
    """Take a batch from the trainer's loader; the next step decodes its own."""
    trainer._ahead = None
    return OneBatch(trainer.loader.next())


def step_on(trainer: Trainer, loader: object) -> Action:
    """Return a step of the trainer whose batch comes from `loader`."""

    def step() -> None:
        trainer.loader = loader  # type: ignore[assignment]
        trainer.step()

    return step


def timed(action: Action, count: int) -> float:
    """Return the seconds of one call, the mean of `count`."""
    start = time.perf_counter()
    for _ in range(count):
        action()
    return (time.perf_counter() - start) / count


def in_turn(
    actions: Mapping[str, Action], *, rounds: int, steps: int, before: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Return the seconds of a call of each action in each round.

    before: calls of an action that are made first and not timed
    """
    rows: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        timed(action, 2)
    for _ in range(rounds):
        for name, action in actions.items():
            for _ in range((before or {}).get(name, 0)):
                action()
            rows[name].append(timed(action, steps))
    return rows
