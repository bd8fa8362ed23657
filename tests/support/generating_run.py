"""A run of an adversarial job, made without training: one checkpoint of initial weights."""

from pathlib import Path

import torch

from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.parse import save_config
from hpc.distributed.comm import Comm
from hpc.task import build_task
from hpc.training import seeding
from launch.options.compose import composed

CLOCK = 48  # of the smoke's progan and stylegan: in mid-fade at 8 pixels


def generating_run(path: Path, job: str, *words: str, clock: int = CLOCK) -> Path:
    """A run of `job` as its smoke has it; `words` as for `rostro submit`."""
    config = composed([f"task={job}", "smoke=true", *words])
    path.mkdir(parents=True)
    save_config(config, path / "config.yaml")
    task = build_task(config)
    with seeding.seeded(config.seed):
        nets = task.players()
    saved = Checkpoint(clock, clock // 16, players={name: net.state_dict() for name, net in nets.items()})
    saved.task, saved.monitor = task.state(), {"sums": {}, "digest": 0}
    saved.ema = {name: net.state_dict() for name, net in nets.items()}
    saved.meta = manager.meta(config, task, Comm(0, 1, 0, torch.device("cpu"))) | {"metrics": {}}
    store.save(path, saved)
    return path
