"""Parameters of which each rank holds some rows, such as the class centres of a softmax over many classes.

A module declares them by a mapping `sharded`, name of its own parameter -> rows on all ranks together; a
parameter's own attributes would not survive a deepcopy. Rank r of w holds the rows [of * r // w,
of * (r + 1) // w). They are neither broadcast nor summed nor compared (`flat.py`), a checkpoint keeps them in
ranges that any number of ranks cuts anew (`hpc/checkpoints/pieces.py`), and initial values are drawn by row,
so that any number of ranks draws the same. PartialFC: An et al. 2022, "Killing two birds with one stone".
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data_shards import counter_rng
from data_shards.errors import UserError
from hpc.distributed.comm import Comm

BLOCK = 1 << 20  # numbers drawn at a time: memory stays bounded


class Rows(NamedTuple):
    """The rows [low, high) of a tensor that has `of` rows on all ranks together."""

    low: int
    high: int
    of: int


def rows_of(of: int, comm: Comm) -> Rows:
    """Return the rows of this rank, at least one; UserError where there are more ranks than rows."""
    if of < comm.world:
        raise UserError(f"{of} rows cannot be cut over {comm.world} ranks: use procs={max(of, 1)} or fewer")
    return Rows(of * comm.rank // comm.world, of * (comm.rank + 1) // comm.world, of)


def declared(module: nn.Module, comm: Comm) -> dict[str, Rows]:
    """Return the rows of this rank by the full name of each sharded tensor.

    UserError for a declaration that does not fit the tensor.
    """
    found: dict[str, Rows] = {}
    tensors = module.state_dict()
    for prefix, owner in module.named_modules(remove_duplicate=False):
        own = getattr(owner, "sharded", None)
        for short, of in own.items() if isinstance(own, dict) else ():
            name, rows = f"{prefix}.{short}" if prefix else short, rows_of(of, comm)
            if name not in tensors or not tensors[name].dim():
                raise UserError(
                    f"{type(owner).__name__}.sharded names {short}, which is not a tensor with rows in its "
                    "state_dict: declare parameters of the module itself"
                )
            if len(tensors[name]) != rows.high - rows.low:
                raise UserError(
                    f"{name} has {len(tensors[name])} rows, but rank {comm.rank} of {comm.world} holds "
                    f"{rows.high - rows.low} of {of}: cut it with hpc.engines.sharded.rows_of"
                )
            found[name] = rows
    return found


def size(module: nn.Module, rows: dict[str, Rows]) -> int:
    """Count the parameters, with the rows of all ranks."""
    return sum(
        p.numel() if name not in rows else math.prod((rows[name].of, *p.shape[1:]))
        for name, p in module.named_parameters()
    )


def normal(rows: Rows, columns: int, *, seed: int, purpose: str) -> Tensor:
    """Draw standard normal numbers float32 [high - low, columns], each row by its number alone."""
    drawn = torch.empty(rows.high - rows.low, columns)
    stream, step = counter_rng.key(seed, "init", purpose), max(1, BLOCK // max(columns, 1))
    for start in range(rows.low, rows.high, step):
        positions = np.arange(start, min(start + step, rows.high))
        values = torch.from_numpy(counter_rng.normal(stream, positions, columns))
        drawn[start - rows.low :][: len(values)] = values
    return drawn


class ShardedRows(nn.Module):
    """A matrix [of, columns] of which this rank holds the rows [rows.low, rows.high) as `weight`.

    Build it in `Task.players` with the task's `comm` and the run's seed. `std`: of the initial numbers;
    `name`: of their draw, another one for each matrix of a task.
    """

    def __init__(
        self, of: int, columns: int, comm: Comm, *, seed: int, name: str = "centres", std: float = 0.01
    ) -> None:
        super().__init__()
        self.rows = rows_of(of, comm)
        self.sharded = {"weight": of}
        self.weight = nn.Parameter(normal(self.rows, columns, seed=seed, purpose=name).mul_(std))

    def own(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of the row numbers `index` [n] are on this rank, and their places in `weight`.

        Both [n], the first bool. The places of the others are 0: mask what is taken from there.
        """
        here = (index >= self.rows.low) & (index < self.rows.high)
        return here, torch.where(here, index - self.rows.low, 0)
