"""A batch of the loader made ready for the networks: on the device, in [-1, 1], changed by the task's ops.

Ops see the whole share of this rank, before it is cut into micro batches.
"""

import dataclasses

import torch

from data_shards.ops.base import run_ops
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.task import Batch, Task


def ready(batch: Batch, task: Task, clock: int, config: Config, comm: Comm) -> Batch:
    """Return the batch of the update that starts at `clock` as `Task.loss` sees it."""
    prepared = batch.prepare(comm.device, channels_last=config.channels_last)
    ops = task.ops(clock)
    if not ops:
        return prepared
    with torch.no_grad():
        changed = run_ops(ops, prepared)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    images = {
        name: image.contiguous(memory_format=layout) if image.dim() == 4 else image
        for name, image in changed.images.items()
    }
    return dataclasses.replace(changed, images=images)
