"""The interface of all engines: how the gradients of one player meet, and who steps.

`Engine` holds what is the same wherever each rank has whole weights and a whole optimizer; `flat.py`,
`ddp.py` and `zero.py` say how gradients meet, and override what they do differently. The order in
`hpc/train.py`: `micro` around forward and `backward`, then `reduce`, `norm`, `step`. Parameters of which each
rank holds some rows are declared as `sharded.py` says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.distributed.comm import Comm
from hpc.engines import sharded
from hpc.optim.ema import Ema
from hpc.optim.guard import guarded
from hpc.optim.state import export_state, import_state, load_module, spec_of


class Engine(ABC):
    """One player on this rank. UserError for sharded parameters where the engine does not take them."""

    name = ""  # as in the config
    second_order = False  # whether a phase may differentiate through a gradient
    takes_shards = False  # whether a parameter may be cut over the ranks by its rows

    def __init__(self, module: nn.Module, comm: Comm) -> None:
        self.module, self.comm = module, comm
        self.net: nn.Module = module  # what the loss calls
        self.named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.rows = sharded.declared(module, comm)  # of which tensors this rank holds which rows
        if self.rows and not self.takes_shards:
            raise UserError(
                f"engine={self.name}: {next(iter(self.rows))} is cut over the ranks by its rows, which "
                "only the flat engine keeps apart: use engine=flat"
            )

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer of the player, built for `named`, before the first pass."""
        if self.rows and spec_of(optimizer).whole_tensors:
            raise UserError(
                f"optim.name={spec_of(optimizer).name} takes one norm of a whole tensor, and "
                f"{next(iter(self.rows))} is cut over the ranks by its rows: use optim.name=adamw or sgd"
            )

    @abstractmethod
    def micro(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a micro batch's forward and backward pass; `last`: of the update."""

    @abstractmethod
    def reduce(self) -> None:
        """Average the gradients over the ranks, unless a backward pass did; all ranks call it."""

    def gradients(self) -> list[Tensor]:
        """Return the gradients of whole parameters: one that took no part has none on any rank."""
        return [p.grad for name, p in self.named if p.grad is not None and name not in self.rows]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro batch, whose loss carries its weight; inside `micro`."""
        loss.backward()

    def backward_cached(self, loss: Tensor, leaf: Tensor) -> Callable[[], Tensor]:
        """Put the gradient of `loss` into the cached outputs `leaf` [n, d], which are computed again next.

        Parameters that only the loss uses have their gradient now. Returns a term for the loss of the last
        micro batch, by which DDP meets these parameters there.
        """
        loss.backward()
        # Not sharded ones: they are large, and no other rank waits for them.
        touched = [p for name, p in self.named if p.grad is not None and name not in self.rows]
        return lambda: sum((p.reshape(-1)[0] * 0.0 for p in touched), torch.zeros(()))

    def norm(self) -> Tensor:
        """Return the Euclidean norm of all gradients, on the device, the same on all ranks, after `reduce`.

        All ranks call it.
        """
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

    # State by parameter name: whole tensors, but of the names in `rows` this rank's rows. All ranks call
    # these: ZeRO gathers.

    def whole(self) -> nn.Module:
        """Return a module with all weights; of sharded ones with this rank's rows."""
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

    def sync_full(self, ema: Ema) -> None:  # noqa: B027 - it is whole where weights are
        """Make the moving average whole before it is used."""

    def checksums(self) -> dict[str, int]:
        """Return an integer by name for each tensor that is the same on ranks that are in step."""
        sums = {}
        for name, tensor in self.module.state_dict().items():
            if name in self.rows:
                continue
            raw = tensor.detach().contiguous().reshape(-1)
            raw = raw.view(torch.int32) if raw.dtype == torch.float32 else raw.to(torch.int64)
            sums[name] = raw.sum(dtype=torch.int64)
        return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True)) if sums else {}
