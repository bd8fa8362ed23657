"""Networks in evaluation mode while a run trains: what the monitor shows must not change a statistic.

The evaluation itself is in `hpc/evaluation/run.py`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from hpc.task import Batch, Task

if TYPE_CHECKING:
    from hpc.training.player import Player


@contextlib.contextmanager
def in_eval_mode(nets: dict[str, nn.Module]) -> Iterator[None]:
    """Put every network into eval mode; restore the mode of each layer afterwards."""
    before = [(module, module.training) for net in nets.values() for module in net.modules()]
    for net in nets.values():
        net.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


class Shown(NamedTuple):
    """What the monitor shows under a name."""

    name: str
    images: Tensor  # [n, 3, h, w] in [-1, 1]
    keep: bool  # whether it also becomes a file


@torch.no_grad()
def monitor_images(
    task: Task, players: Mapping[str, "Player"], helpers: Mapping[str, nn.Module], batch: Batch, clock: int
) -> list[Shown]:
    """Return what the monitor shows, and change nothing in networks that may be in training.

    What the task wants kept is shown of the raw networks too where there are averages, as `<name>_raw`. All
    ranks call it.
    """

    def images_of(nets: dict[str, nn.Module]) -> dict[str, Tensor]:
        with in_eval_mode(nets):
            return task.images(nets, batch, clock)

    kept = task.kept_images
    evaluated = {name: player.evaluated for name, player in players.items()} | dict(helpers)
    shown = [Shown(name, images, name in kept) for name, images in images_of(evaluated).items()]
    if kept and any(player.ema for player in players.values()):
        raw = {name: player.engine.whole() for name, player in players.items()} | dict(helpers)
        own = images_of(raw)
        shown += [Shown(f"{name}_raw", own[name], True) for name in kept if name in own]
    return shown
