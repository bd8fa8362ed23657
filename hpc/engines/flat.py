"""The flat engine, and the interface of all engines: how the gradients of one player meet, and who steps.

`Flat` keeps the raw module and sums one flattened tensor for each update: it takes any number of players and
any kind of loss. `DDP` (`ddp.py`) and `ZeRO` (`zero.py`) override what they do differently. With one rank it
is the bare module. The order in `hpc/train.py`: `micro` around forward and `backward`, then `reduce`, `norm`,
`step`.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from hpc.distributed.collectives import sum_
from hpc.distributed.comm import Comm
from hpc.optim.ema import Ema
from hpc.optim.guard import guarded
from hpc.optim.state import export_state, import_state, load_module


class Flat:
    """Raw module; one flattened all-reduce for each update."""

    second_order = True  # whether a phase may differentiate through a gradient

    def __init__(self, module: nn.Module, comm: Comm) -> None:
        self.module, self.comm = module, comm
        self.net: nn.Module = module  # what the loss calls
        self.named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer of the player, built for `named`, before the first pass."""

    def micro(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a micro batch's forward and backward pass; `last`: of the update."""
        return contextlib.nullcontext()

    def gradients(self) -> list[Tensor]:
        """Return the gradients that exist: parameters that took no part have none on any rank."""
        return [p.grad for _, p in self.named if p.grad is not None]

    @torch.no_grad()
    def reduce(self) -> None:
        """Average the gradients over the ranks."""
        grads = self.gradients()
        if self.comm.world == 1 or not grads:
            return
        flat = sum_(torch.cat([grad.reshape(-1) for grad in grads]), self.comm).div_(self.comm.world)
        for grad, piece in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(piece.view(grad.shape))

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro batch, whose loss carries its weight; inside `micro`."""
        loss.backward()

    def backward_cached(self, loss: Tensor, leaf: Tensor) -> Callable[[], Tensor]:
        """Put the gradient of `loss` into the cached outputs `leaf` [n, d], which are computed again next.

        Parameters that only the loss uses have their gradient now. Returns a term for the loss of the last
        micro batch, by which DDP meets these parameters there.
        """
        loss.backward()
        touched = [p for p in self.module.parameters() if p.grad is not None]
        return lambda: sum((p.reshape(-1)[0] * 0.0 for p in touched), torch.zeros(()))

    def norm(self) -> Tensor:
        """Return the Euclidean norm of all gradients, on the device; equal on all ranks after `reduce`."""
        grads = self.gradients()
        return torch.nn.utils.get_total_norm(grads) if grads else torch.zeros((), device=self.comm.device)

    def step(self, optimizer: torch.optim.Optimizer, clip: float, norm: Tensor, finite: Tensor) -> None:
        """Scale the gradients down to the norm `clip` (0 = never), given their `norm`, and update.

        `finite`: whether `norm` is, on the device; nothing moves by gradients that are not.
        """
        if clip:
            parameters = [p for _, p in self.named if p.grad is not None]
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        with guarded(optimizer, finite):
            optimizer.step()

    # Weights and states as whole tensors by parameter name. All ranks call these: ZeRO gathers.

    def whole(self) -> nn.Module:
        """Return a module with all weights."""
        return self.module

    def load(self, tensors: dict[str, Tensor], what: str) -> None:
        """Load weights and buffers by name; UserError, which names `what`, where they do not fit."""
        load_module(self.module, tensors, what)

    def export_optim(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return the optimizer's state by parameter name, on rank 0 at least."""
        return export_state(optimizer, self.named)

    def import_optim(self, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
        """Load what `export_optim` returned; UserError where it does not fit."""
        import_state(optimizer, self.named, tensors)

    def average(self, ema: Ema, clock_after: int, batch: int) -> None:
        """Move the moving average after an update of `batch` images that ended at `clock_after`."""
        ema.update(self.module, clock_after, batch)

    def sync_full(self, ema: Ema) -> None:
        """Make the moving average whole before it is used."""
