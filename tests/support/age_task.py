"""Runs of the task of ages and genders (`tests/support/tasks/ages.py`), and a set of procedural faces."""

from pathlib import Path

import torch

import tests.support.tiny  # noqa: F401 - makes the task known
from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Data
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import build_task
from hpc.training import seeding
from tests.support.runs import make_run


def faces(folder: Path, *, identities: int = 16) -> Path:
    """Pack procedural faces with train, val and eval under `folder`."""
    from launch.commands import pack

    words = ["source=procedural", f"identities={identities}", "per_identity=3", "size=64"]
    assert pack.main([*words, f"out={folder}", "workers=1", "holdout=0.3", "val=0.3", "seed=3"]) == 0
    return folder


def age_run(path: Path, shards: Path, *, seed: int = 0) -> Path:
    """A run with a checkpoint of its initial weights."""
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
