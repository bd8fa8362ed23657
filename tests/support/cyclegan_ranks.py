"""What `test_cyclegan.py` runs on every rank: updates of both players on counted images."""

from typing import Any

import torch
from torch import Tensor

from data_shards.batch import Batch
from hpc.checkpoints import task_state
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.task import build_task
from hpc.training.networks import build_networks
from hpc.training.passes import Passes
from hpc.training.step_sync import StepScalars
from launch.options.compose import composed

SIDE = 24


def config_of(*words: str) -> Config:
    return composed(["task=cyclegan", "smoke=true", f"data.size={SIDE}", "task.width=2", *words])


def images(positions: Tensor, name: str, side: int = SIDE) -> Tensor:
    """Draw the images [n, 3, side, side] of a domain at `positions`, in [-1, 1]."""
    drawn = Batch.of_positions(positions, seed=1).latents(name, 3 * side * side)
    return drawn.view(-1, 3, side, side).tanh()


def batch_of(clock: int, rows: slice, count: int, side: int = SIDE) -> Batch:
    positions = torch.arange(clock, clock + count)[rows]
    pair = {name: images(positions, name, side) for name in ("a", "b")}
    return Batch(pair, {}, torch.stack([positions, positions], 1), positions)


def updates(
    comm: Comm, words: list[str], clocks: list[int], state: dict[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Make the updates that start at `clocks`: gradients and losses by update and name, and the task's state.

    state: of the task, to begin with; the networks begin with their first weights in any case
    """
    config = config_of(*words)
    task, scalars = build_task(config), StepScalars()
    task.comm, task.report = comm, scalars.report
    if state is not None:
        task.load_state(task_state.copied(state))
    players, helpers = build_networks(config, task, comm)
    passes = Passes(config, task, players, helpers, scalars, comm)
    share = config.batch // comm.world
    found: dict[str, Tensor] = {}
    for clock in clocks:
        batch = batch_of(clock, slice(comm.rank * share, (comm.rank + 1) * share), config.batch)
        for index, phase in enumerate(task.phases(clock)):
            loss = passes.backward(index, phase, batch, clock, task.stage(clock))
            player = players[phase.player]
            player.engine.reduce()
            found[f"{clock} {phase.name} loss"] = loss
            for name, p in player.named:
                assert p.grad is not None
                found[f"{clock} {phase.name} {name}"] = p.grad.clone()
    return found, task_state.copied(task.state())
