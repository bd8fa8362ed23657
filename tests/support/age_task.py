"""A task of ages and genders, put into `hpc.tasks` for a test, and a set of procedural faces for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Data
from hpc.distributed.comm import Comm
from hpc.evaluation.classes import Classes
from hpc.evaluation.values import Values
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Phase, Task, build_task
from hpc.training import seeding
from models.backbones import build_trunk
from tests.support.runs import make_run


class Ages(Task):
    """Predicts an age, and the logits of two genders."""

    fields = ("age", "gender")
    metric = ("age/mae", "min")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.evaluators = {
            "age": lambda: Values("age", unit="years"),
            "gender": lambda: Classes("gender", names=("female", "male")),
        }

    def players(self) -> dict[str, nn.Module]:
        trunk, features = build_trunk("small")
        return {"net": nn.Sequential(trunk, nn.Linear(features, 3))}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("age", "net")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        found = self.predict(nets, batch)
        return nn.functional.l1_loss(found["age"], batch.labels["age"].float())

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        found = nets["net"](batch.images["image"]).float()
        return {"age": 30 + 10 * found[:, 0], "gender": found[:, 1:]}


@contextmanager
def age_task() -> Iterator[None]:
    """Let `task.name=ages` be known inside of the block."""
    module = ModuleType("hpc.tasks.ages")
    module.build = Ages  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"hpc.tasks.ages": module}):
        yield


def faces(folder: Path, *, identities: int = 16) -> Path:
    """Pack procedural faces with train, val and eval under `folder`."""
    from launch.commands import pack

    words = ["source=procedural", f"identities={identities}", "per_identity=3", "size=64"]
    assert pack.main([*words, f"out={folder}", "workers=1", "holdout=0.3", "val=0.3", "seed=3"]) == 0
    return folder


def age_run(path: Path, shards: Path, *, seed: int = 0) -> Path:
    """A run with a checkpoint of its initial weights; call it inside of `age_task()`."""
    folders = {split: str(shards / split) for split in ("train", "val", "eval")}
    data = Data(**folders, size=32, order="plain", backend="host", threads=1)
    run = make_run(path, shards, task={"name": "ages"}, data=data, seed=seed)
    config = RunDir(run).config()
    task = build_task(config)
    with seeding.seeded(config.seed):
        net = task.players()["net"]
    saved = Checkpoint(160, 10, players={"net": net.state_dict()}, task=task.state())
    saved.monitor = {"sums": {}, "digest": 0}
    comm = Comm(0, 1, 0, torch.device("cpu"))
    saved.meta = manager.meta(config, task, comm) | {"metrics": {"age/mae": 9.0 + seed}}
    store.save(run, saved)
    return run
