"""A run with two checkpoints, made without training: initial weights, moved a little."""

from pathlib import Path
from typing import Any

import torch

from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import build_task
from hpc.training import seeding
from tests.support.runs import TASK, make_run


def judged_run(
    path: Path,
    shards: Path,
    *,
    loss: str = "contrastive",
    averaged: bool = True,
    task: dict[str, Any] | None = None,
) -> Path:
    """Checkpoints at 160 (the best) and 320 images, with an average if `averaged`.

    task: its keys (None = the siamese job with `loss`)
    """
    run = make_run(path, shards, task=task or TASK | {"loss": loss})
    config = RunDir(run).config()
    built = build_task(config)
    for clock, eer in ((160, 0.1), (320, 0.2)):
        with seeding.seeded(config.seed):
            raw = built.players()["net"]
        move(raw, clock)
        saved = Checkpoint(clock, clock // 16, players={"net": raw.state_dict()}, task=built.state())
        saved.monitor = {"sums": {}, "digest": 0}
        saved.meta = manager.meta(config, built, Comm(0, 1, 0, torch.device("cpu"))) | {
            "metrics": {"eer": eer}
        }
        if averaged:
            with seeding.seeded(config.seed + 1):
                saved.ema["net"] = built.players()["net"].state_dict()
        store.save(run, saved)
    return run


def move(net: torch.nn.Module, seed: int) -> None:
    """Batch norm as after some training: statistics that are not 0 and 1, weights that differ by clock."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_mean"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=drawn))
            elif name.endswith("weight"):
                tensor.mul_(1 + 0.05 * torch.randn(tensor.shape, generator=drawn))
