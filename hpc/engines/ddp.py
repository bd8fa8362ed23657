"""The DDP engine: torch's DistributedDataParallel, which sums gradients while the backward pass runs."""

import contextlib
import inspect
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hpc.distributed.comm import Comm
from hpc.engines.base import Engine

# hpc/engines/batch_norm.py keeps the buffers equal. torch 2.13 renamed the argument.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


class DDP(Engine):
    """torch's DistributedDataParallel. Its buckets are laid out anew after the first backward pass, which
    changes the order of the sums: the trainer makes warm-up passes before a state is loaded. Li et al. 2020,
    "PyTorch Distributed", section 3.2.
    """

    name = "ddp"
    second_order = False  # gradients of phases that only penalise a gradient would be wrong without an error

    def __init__(self, module: nn.Module, comm: Comm, *, bucket_mb: float) -> None:
        super().__init__(module, comm)
        if comm.world > 1:
            self.net = DistributedDataParallel(
                module,
                device_ids=[comm.device.index] if comm.device.type == "cuda" else None,
                **_BUFFERS,
                bucket_cap_mb=bucket_mb,
                gradient_as_bucket_view=True,
            )

    def micro(self, last: bool) -> AbstractContextManager[None]:
        if isinstance(self.net, DistributedDataParallel) and not last:
            return self.net.no_sync()
        return contextlib.nullcontext()

    def reduce(self) -> None:
        """Do nothing: DDP has averaged in the last micro batch's backward pass."""
