"""Loads a trained network back from its run: `evaluate`, `verify` and `export` share it.

Images go through the preprocessing of the run (centre square, data.size, RGB in [-1, 1]) and one pinned
decoder. Weights come from a verified checkpoint; nothing is unpickled.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from data_shards.loading.loader import decode_images
from data_shards.loading.reader import Reader
from data_shards.ragged import Ragged
from data_shards.sampling.placed import Placed
from data_shards.shard_format.shard_set import ShardSet
from hpc.checkpoints import store
from hpc.checkpoints.manifest import check_config, folder_name
from hpc.checkpoints.store import Damaged
from hpc.config.schema import Config
from hpc.optim.state import load_module
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Score, Task, build_task
from hpc.training import seeding
from hpc.training.helpers import build_helpers, check_helpers, digests

BATCH = 64  # images at a time
UNTRAINED = "untrained"  # in the place of the name of weights
PARTS = ("player", "ema")  # of a checkpoint: the optimizer's state is the largest of all


@dataclass
class Predictor:
    """The networks of a run in evaluation mode."""

    task: Task
    nets: dict[str, nn.Module]
    config: Config
    run: Path
    clock: int  # images seen (0 = untrained, or trained elsewhere)
    weights: str  # ema | raw | untrained
    meta: dict[str, Any]  # manifest of the checkpoint

    @property
    def name(self) -> str:
        """Name the run and which of its weights, for tables."""
        if self.weights == UNTRAINED:
            return "untrained network"
        return f"{self.run.name} at {self.clock:,} ({self.weights})" if self.clock else self.run.name

    def predict(self, images: np.ndarray, placed: Placed | None = None) -> dict[str, Any]:
        """Return the task's outputs for images uint8 [n, h, w, 3] (RGB), which are `placed` in their files.

        Each is an array [n, ...], or where it is ragged a list of n arrays.
        """
        parts = []
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            parts.append(self._block(images[rows], None if placed is None else placed[rows]))
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}

    def _block(self, images: np.ndarray, placed: Placed | None) -> dict[str, Any]:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device()).permute(0, 3, 1, 2)
        batch = Batch.of_images(tensor.float().div_(127.5).sub_(1.0), placed)
        with torch.inference_mode():
            outputs = self.task.predict(self.nets, batch)
        return {key: _on_host(value) for key, value in outputs.items()}

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return embeddings float32 [n, d] of images uint8 [n, size, size, 3] (RGB)."""
        outputs = self.predict(images)
        if "embedding" not in outputs:
            raise UserError(f"task {self.config.task['name']} gives no embedding: use a run of task=siamese")
        return outputs["embedding"]

    def untrained(self) -> "Predictor":
        """Build the same networks with the initial weights of their run's seed."""
        return untrained(self)

    def blocks(self, shards: ShardSet, ids: np.ndarray) -> "ImageBlocks":
        """Return the decoded samples `ids` of a set, an iterable of blocks of images."""
        return ImageBlocks(shards, ids, self.config.data.size)

    @property
    def unit(self) -> str:
        """What a score of two embeddings is: cosine | probability."""
        return self.task.unit

    @property
    def score(self) -> Score:
        """The function by which this network compares two embeddings."""
        return self.task.score(self.nets)


def _on_host(value: Tensor | Ragged) -> Any:
    if isinstance(value, Ragged):
        rows = value.rows.float().cpu().numpy()
        return [rows[low:high] for low, high in itertools.pairwise(value.starts.tolist())]
    return value.float().cpu().numpy()


def _joined(parts: list[Any]) -> Any:
    return list(itertools.chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _candidates(run: Path, which: str, task: Task) -> list[Path]:
    """List the checkpoints to try in turn: `best`, `last`, or the one of a clock."""
    paths = store.listing(run)
    if not paths:
        raise UserError(f"run {run} has no checkpoint yet: wait for the first, or lower save.every")
    if which == "last":
        return paths[::-1]
    if which == "best":
        for path in set(paths) - {path for path, _ in store.readable(run)}:
            _warn(f"checkpoint {path} is left out, its manifest is damaged: `best` is chosen from the others")
        ranked = store.ranked(run, task.metric)
        return ranked + [path for path in reversed(paths) if path not in ranked]
    is_clock = which.isascii() and which.isdigit()
    matches = [path for path in paths if is_clock and path.name == folder_name(int(which))]
    if not matches:
        known = ", ".join(str(int(path.name)) for path in paths)
        raise UserError(f"checkpoint={which} is not in {run}: use best, last or one of {known}")
    return matches


def _read(paths: list[Path]) -> store.Checkpoint:
    """Read the first of `paths` whose hashes match, with a warning for each one before it."""
    for path in paths[:-1]:
        try:
            return store.read(path, parts=PARTS)
        except Damaged as error:
            _warn(f"{error}; taking another one")
    return store.read(paths[-1], parts=PARTS)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _build(config: Config) -> tuple[Task, dict[str, nn.Module]]:
    task = build_task(config)
    with seeding.seeded(config.seed):
        nets = task.players()
    return task, nets


def _ready(nets: dict[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: net.to(device()).eval().requires_grad_(False) for name, net in nets.items()}


def _helpers(
    task: Task, nets: dict[str, nn.Module], config: Config, saved: store.Checkpoint
) -> dict[str, nn.Module]:
    """Build what figures may need beside the players. UserError where it is not what the run was given."""
    with seeding.seeded(config.seed):
        helpers = build_helpers(task, nets, device())
    if "helpers" in saved.meta:
        check_helpers(saved.meta["helpers"], digests(helpers), saved.clock)
    return helpers


def load_run(
    run: Path | str, *, checkpoint: str = "best", weights: str = "auto", helpers: bool = False
) -> Predictor:
    """Load the networks of a run directory, from a checkpoint whose hashes match.

    `checkpoint`: best | last | a clock; `weights`: ema | raw | auto (the average where one was kept);
    `helpers`: also the frozen networks of the task, which only figures need. Raises UserError where the run
    has no such checkpoint or weights, or a helper has other weights than it had.
    """
    if weights not in ("auto", "ema", "raw"):
        raise UserError(f"weights={weights} is not known: use ema, raw or auto")
    run_dir = RunDir.open(run)
    folder, config = run_dir.path, run_dir.config()
    check_config(folder, config)
    task, nets = _build(config)
    saved = _read(_candidates(folder, checkpoint, task))
    if weights == "ema" and not saved.ema:
        raise UserError(f"weights=ema: {folder} kept no average (ema.half_life=0): use weights=raw")
    averaged = bool(saved.ema) and weights != "raw"
    _load(nets, saved, averaged=averaged, where=f"{folder.name} at {saved.clock}")
    task.load_state(saved.task)
    task.clock = saved.clock
    return Predictor(
        task,
        _ready(nets) | (_helpers(task, nets, config, saved) if helpers else {}),
        config,
        folder,
        saved.clock,
        "ema" if averaged else "raw",
        saved.meta,
    )


def _load(nets: dict[str, nn.Module], saved: store.Checkpoint, *, averaged: bool, where: str) -> None:
    for name, net in nets.items():
        if name not in saved.players:
            raise UserError(f"checkpoint {where} has no player {name}: it belongs to another task")
        tensors = saved.players[name] | (saved.ema.get(name, {}) if averaged else {})
        load_module(net, tensors, f"checkpoint {where}, player {name}")


def untrained(trained: Predictor) -> Predictor:
    """Build the same networks with the initial weights of their run's seed."""
    task, nets = _build(trained.config)
    helpers = {name: net for name, net in trained.nets.items() if name not in nets}
    return Predictor(task, _ready(nets) | helpers, trained.config, trained.run, 0, UNTRAINED, {})


class ImageBlocks:
    """The decoded samples `ids` of a set, an iterable of uint8 blocks [<= 64, size, size, 3] in order."""

    def __init__(self, shards: ShardSet, ids: np.ndarray, size: int) -> None:
        self.shards, self.ids, self.size = shards, ids, size

    def __len__(self) -> int:
        return -(-len(self.ids) // BATCH)

    def __iter__(self) -> Iterator[np.ndarray]:
        reader = Reader(self.shards)
        try:
            for start in range(0, len(self.ids), BATCH):
                blobs = reader.read(self.ids[start : start + BATCH])
                yield decode_images([bytes(blob) for blob in blobs], self.size)
        finally:
            reader.close()
