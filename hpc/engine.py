"""Engines: how the gradients of one player meet. One engine for each player, behind one interface.

`Flat` keeps the raw module and sums one flattened tensor for each update: any number of players, any kind
of loss. `DDP` wraps the module in torch's DistributedDataParallel, which sums gradients while the backward
pass still runs. With one rank both are the bare module. The order in `hpc/train.py`: `micro` around
forward and backward, then `reduce`, then the optimizer.
"""

import contextlib
import inspect
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpc.dist import Dist, sum_
from hpc.errors import UserError

# hpc/norm.py keeps the buffers equal. torch 2.13 renamed the argument.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


class Flat:
    """Raw module; one flattened all-reduce for each update."""

    def __init__(self, module: nn.Module, here: Dist) -> None:
        self.module, self.here = module, here
        self.net: nn.Module = module  # what the loss calls
        self.named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def micro(self, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a micro batch; `last` of the update."""
        return contextlib.nullcontext()

    def gradients(self) -> list[Tensor]:
        """Gradients that exist: parameters that took no part have none on any rank and are skipped."""
        return [p.grad for _, p in self.named if p.grad is not None]

    @torch.no_grad()
    def reduce(self) -> None:
        """Average the gradients over the ranks."""
        grads = self.gradients()
        if self.here.world == 1 or not grads:
            return
        flat = sum_(torch.cat([grad.reshape(-1) for grad in grads]), self.here).div_(self.here.world)
        for grad, piece in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(piece.view(grad.shape))


class DDP(Flat):
    """torch's DistributedDataParallel. Its buckets are laid out anew after the first backward pass, which
    changes the order of the sums: the trainer makes warm-up passes before a state is loaded.
    """

    def __init__(self, module: nn.Module, here: Dist, *, bucket_mb: float) -> None:
        super().__init__(module, here)
        if here.world > 1:
            self.net = DistributedDataParallel(
                module,
                device_ids=[here.device.index] if here.device.type == "cuda" else None,
                **_BUFFERS,
                bucket_cap_mb=bucket_mb,
                gradient_as_bucket_view=True,
            )

    def micro(self, last: bool) -> AbstractContextManager[None]:
        if isinstance(self.net, DistributedDataParallel) and not last:
            return self.net.no_sync()
        return contextlib.nullcontext()

    def reduce(self) -> None:
        """Done already: DDP averages while the last micro batch runs backward."""


Engine = Flat


def build(name: str, module: nn.Module, here: Dist, *, bucket_mb: float = 25.0) -> Engine:
    """The engine called `name` (flat | ddp) around one player."""
    if name == "flat":
        return Flat(module, here)
    if name == "ddp":
        return DDP(module, here, bucket_mb=bucket_mb)
    raise UserError(f"engine={name} is not known: use ddp or flat")
