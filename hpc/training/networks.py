"""Builds the networks of a run under its seed: players, which optimizers update, and frozen helpers."""

from torch import nn

from hpc.config.plan import check_players
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.task import Task
from hpc.training import helpers, seeding
from hpc.training.player import Player


def build_networks(config: Config, task: Task, comm: Comm) -> tuple[dict[str, Player], dict[str, nn.Module]]:
    """Return the players and the helpers of a task by name, with their first weights, on the device."""
    with seeding.seeded(config.seed):
        modules = task.players()
    check_players(config, modules)
    players = {
        name: Player(name, module, config, comm, helpers.parameter_groups(task, name, module))
        for name, module in modules.items()
    }
    with seeding.seeded(config.seed):
        return players, helpers.build_helpers(task, modules, comm.device)
