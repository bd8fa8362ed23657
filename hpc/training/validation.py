"""Networks in evaluation mode while a run trains: what the monitor shows must not change a statistic.

The evaluation itself is in `hpc/evaluation/run.py`.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hpc.task import Batch, Task


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


@torch.no_grad()
def monitor_images(task: Task, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
    """Return the images that the monitor shows, and change nothing in networks that may be in training."""
    with in_eval_mode(nets):
        return task.images(nets, batch, clock)
