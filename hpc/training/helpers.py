"""What of a task is not trained: its frozen helpers, which losses find beside the players, and parameters."""

import glob
from collections.abc import Iterable

import torch
from torch import nn

from data_shards.errors import UserError
from hpc.optim.groups import digest, matching
from hpc.task import Group, Task


def build_helpers(task: Task, players: Iterable[str], device: torch.device) -> dict[str, nn.Module]:
    """Return the task's helpers on the device, in eval mode and without gradients."""
    helpers = task.frozen()
    for name in players:
        if name in helpers:
            raise UserError(
                f"{name} is both a player and a helper of task {task.plan.name}: rename one of them"
            )
    return {name: module.to(device).eval().requires_grad_(False) for name, module in helpers.items()}


def digests(helpers: dict[str, nn.Module]) -> dict[str, str]:
    """Return the hash of each helper, which a checkpoint keeps."""
    return {name: digest(module) for name, module in helpers.items()}


def check_helpers(saved: dict[str, str], current: dict[str, str], clock: int) -> None:
    """Raise UserError for a helper whose weights are not those of the run, naming the first one."""
    for name in sorted(saved.keys() | current.keys()):
        if saved.get(name) != current.get(name):
            before, now = (hashes.get(name, "none")[:12] for hashes in (saved, current))
            raise UserError(
                f"the frozen helper {name} has the digest {now}, the checkpoint of clock {clock} was made "
                f"with {before}: give the weights that the run began with, or start a new run"
            )


def parameter_groups(task: Task, player: str, module: nn.Module) -> dict[str, Group]:
    """Return what the task and init.freeze say of parameters of a player; what init freezes comes first."""
    frozen = [
        glob.escape(name)
        for name in module.state_dict()
        if matching(f"{player}.{name}", task.config.init.freeze)
    ]
    rest = {pattern: group for pattern, group in task.groups(player).items() if pattern not in frozen}
    return dict.fromkeys(frozen, Group(frozen=True)) | rest
