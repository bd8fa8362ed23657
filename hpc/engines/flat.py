"""Engines: how the gradients of one player meet, and who steps. One engine for each player, behind one interface.

`Flat` keeps the raw module and sums one flattened tensor for each update: any number of players, any kind
of loss. `DDP` wraps the module in torch's DistributedDataParallel, which sums gradients while the backward
pass still runs. With one rank both are the bare module. DeepSpeed is in `hpc/engines/zero.py`. The order in
`hpc/train.py`: `micro` around forward and `backward`, then `reduce`, `norm`, `step`.
"""

import contextlib
import inspect
from collections.abc import Callable, Sized
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpc.checkpoints import store
from hpc.config.schema import Config
from hpc.distributed.comm import Dist, sum_
from hpc.errors import UserError
from hpc.optim import build
from hpc.optim.ema import Ema

# hpc/engines/batch_norm.py keeps the buffers equal. torch 2.13 renamed the argument.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


class Flat:
    """Raw module; one flattened all-reduce for each update."""

    second_order = True  # whether a phase may differentiate through a gradient

    def __init__(self, module: nn.Module, here: Dist) -> None:
        self.module, self.here = module, here
        self.net: nn.Module = module  # what the loss calls
        self.named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer of the player, built for `named`, before the first pass."""

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

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro batch, whose loss carries its weight; inside `micro`."""
        loss.backward()

    def backward_cached(self, loss: Tensor, leaf: Tensor) -> Callable[[], Tensor]:
        """The gradient of `loss` with respect to cached outputs `leaf`, before their micro batches run again.

        Parameters that only the loss uses have their gradient now; the term that is returned makes DDP meet them
        again in the last micro batch.
        """
        loss.backward()
        touched = [p for p in self.module.parameters() if p.grad is not None]
        return lambda: sum((p.reshape(-1)[0] * 0.0 for p in touched), torch.zeros(()))

    def norm(self) -> Tensor:
        """Euclidean norm over all gradients, a scalar on the device; the same on all ranks after `reduce`."""
        grads = self.gradients()
        return torch.nn.utils.get_total_norm(grads) if grads else torch.zeros((), device=self.here.device)

    def step(self, optimizer: torch.optim.Optimizer, clip: float, norm: Tensor) -> None:
        """Scale the gradients down to `clip` (0: never), given their norm, and update."""
        if clip:
            parameters = [p for _, p in self.named if p.grad is not None]
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimizer.step()

    # Weights and states as whole tensors by parameter name. All ranks call these: ZeRO gathers.

    def whole(self) -> nn.Module:
        """A module with all weights."""
        return self.module

    def load(self, tensors: dict[str, Tensor], what: str) -> None:
        store.load_module(self.module, tensors, what)

    def export_optim(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """On rank 0 at least."""
        return build.export_state(optimizer, self.named)

    def import_optim(self, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
        build.import_state(optimizer, self.named, tensors)

    def average(self, ema: Ema, clock_after: int, batch: int) -> None:
        """Move the moving average after an update."""
        ema.update(self.module, clock_after, batch)

    def settle(self, ema: Ema) -> None:
        """Make the moving average whole before it is used."""


class DDP(Flat):
    """torch's DistributedDataParallel. Its buckets are laid out anew after the first backward pass, which
    changes the order of the sums: the trainer makes warm-up passes before a state is loaded.
    """

    second_order = False  # gradients of R1-only phases would be wrong without an error

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


def check_players(config: Config, players: Sized) -> None:
    """Refuse several players where DeepSpeed's hooks cannot tell their passes apart."""
    stage = config.engine.deepspeed.stage
    if config.engine.name == "deepspeed" and len(players) > 1 and stage > 1:
        raise UserError(
            f"engine.deepspeed.stage={stage} takes one network, this task has {len(players)} players: use "
            "engine.deepspeed.stage=1 or engine=flat"
        )


def build_engine(
    name: str, module: nn.Module, here: Dist, *, bucket_mb: float = 25.0, config: Config | None = None
) -> Engine:
    """The engine called `name` (flat | ddp | deepspeed, which needs `config`) around one player."""
    if name == "flat":
        return Flat(module, here)
    if name == "ddp":
        return DDP(module, here, bucket_mb=bucket_mb)
    if name == "deepspeed" and config is not None:
        from hpc.engines.zero import ZeRO

        return ZeRO(module, here, config)
    raise UserError(f"engine={name} is not known: use ddp, flat or deepspeed")
