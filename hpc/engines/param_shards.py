"""Parameters cut into pieces over the ranks: which piece is where, stepping them, and putting them together.

ZeRO cuts flat partitions, so a rank owns a run of consecutive elements of some parameters. An optimizer that
steps those runs one by one keeps a state for each parameter, as without ZeRO: a parameter that took no part
is skipped, and the state is saved by name. Used by `hpc/engines/zero.py`; knows nothing of DeepSpeed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.optim import state
from hpc.optim.state import export_state, import_state


@dataclass
class ParamShard:
    """Elements [start, start + numel) of the flattened parameter `name`, at `offset` of the tensor `flat`."""

    name: str
    start: int
    flat: Tensor
    offset: int
    piece: nn.Parameter  # the elements themselves: shares memory with `flat`

    @property
    def numel(self) -> int:
        return self.piece.numel()

    def of(self, whole: Tensor) -> Tensor:
        """Return the same elements of another whole tensor (a copy where its memory has another order)."""
        return whole.detach().reshape(-1).narrow(0, self.start, self.numel)


def shard_of(name: str, start: int, flat: Tensor, offset: int, numel: int) -> ParamShard:
    return ParamShard(name, start, flat, offset, nn.Parameter(flat.detach().narrow(0, offset, numel)))


class ProxyOptimizer(torch.optim.Optimizer):
    """The optimizer that DeepSpeed sees: it has the parameters' groups and passes `step` on to `on_step`."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__([{"params": list(group["params"]), "lr": 0.0} for group in groups], {})
        self.on_step: Any = lambda flat: None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """DeepSpeed calls this once for each flat tensor, with its gradient in place."""
        for group in self.param_groups:
            for flat in group["params"]:
                if flat.grad is not None:
                    self.on_step(flat)


class ParamShards:
    """All pieces of one rank, and the places of those of the others."""

    def __init__(self, pieces: list[ParamShard], shapes: dict[str, torch.Size], comm: Comm) -> None:
        self.pieces, self.shapes, self.comm = pieces, shapes, comm
        self.named: state.Named = [(shard.name, shard.piece) for shard in pieces]
        self._places = {shard.name: shard for shard in pieces}
        self._everyone = collectives.gather_objects(
            [(shard.name, shard.start, shard.numel) for shard in pieces], comm
        )

    def rebind(self, optimizer: torch.optim.Optimizer, named_parameters: state.Named) -> None:
        """Let `optimizer`, built for the whole parameters, step this rank's pieces of them instead."""
        names = {p: name for name, p in named_parameters}
        for group in optimizer.param_groups:
            own = [self._places[names[p]] for p in group["params"] if names[p] in self._places]
            group["params"] = [shard.piece for shard in own]

    def gather_full(self, values: dict[str, Tensor], *, everywhere: bool) -> dict[str, Tensor]:
        """Gather whole tensors by name from the ranks' pieces, on rank 0 only or on all; bit for bit.

        All ranks call it with the same names, as far as they own a piece of them. On other ranks the result
        is empty.
        """
        used = set().union(*collectives.gather_objects(sorted(values), self.comm))
        tables = [[row for row in table if row[0] in used] for table in self._everyone]
        pieces = [values[name].detach().reshape(-1) for name, *_ in tables[self.comm.rank]]
        vectors = self._exchange(pieces, [sum(row[2] for row in table) for table in tables], everywhere)
        full: dict[str, Tensor] = {}
        for table, vector in zip(tables, vectors, strict=False):
            for (name, start, numel), part in zip(
                table, vector.split([row[2] for row in table]), strict=True
            ):
                whole = full.setdefault(name, vector.new_zeros(self.shapes[name]))
                whole.view(-1).narrow(0, start, numel).copy_(part)
        return full

    def _exchange(self, pieces: list[Tensor], sizes: list[int], everywhere: bool) -> list[Tensor]:
        """Return every rank's pieces as one vector each; an empty list on a rank that receives none."""
        device = pieces[0].device if pieces else self._device()
        packed = torch.zeros(max([*sizes, 1]), device=device)
        if pieces:
            torch.cat(pieces, out=packed[: sizes[self.comm.rank]])
        if self.comm.world == 1:
            return [packed[: sizes[0]]]
        receives = everywhere or self.comm.main
        parts = [torch.empty_like(packed) for _ in sizes] if receives else None
        if everywhere:
            torch.distributed.all_gather(parts, packed)
        else:
            torch.distributed.gather(packed, parts, dst=0)
        return [part[:size] for part, size in zip(parts or [], sizes, strict=False)]

    def _device(self) -> torch.device:
        return self.pieces[0].piece.device if self.pieces else self.comm.device

    def export_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return on rank 0 the optimizer's state for whole parameters; empty elsewhere. All ranks call it."""
        own = export_state(optimizer, self.named)
        by_key: dict[str, dict[str, Tensor]] = {}
        single: dict[str, tuple[float, torch.dtype]] = {}
        for full, value in own.items():
            name, _, key = full.rpartition("/")
            if value.dim() == 0:
                single[full] = (float(value), value.dtype)
            else:
                by_key.setdefault(key, {})[name] = value
        states: dict[str, Tensor] = {}
        keys = sorted(set().union(*collectives.gather_objects(sorted(by_key), self.comm)))
        for key in keys:
            whole = self.gather_full(by_key.get(key, {}), everywhere=False)
            states |= {f"{name}/{key}": tensor for name, tensor in whole.items()}
        for part in collectives.gather_objects(single, self.comm):
            states |= {full: torch.tensor(value, dtype=kind) for full, (value, kind) in part.items()}
        return states if self.comm.main else {}

    def import_state(self, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
        """Load this rank's pieces of what `export_state` returned; UserError names the first misfit."""
        kept = {}
        for full, value in tensors.items():
            name, _, key = full.rpartition("/")
            if name not in self.shapes or (name in self._places and key in ("step", state.UNSTEPPED)):
                kept[full] = value  # an unknown name is refused below
            elif name in self._places:
                if value.shape != self.shapes[name]:
                    raise UserError(
                        f"the optimizer state {full} has shape {list(value.shape)}, its parameter has "
                        f"{list(self.shapes[name])}: use the run's own config"
                    )
                kept[full] = self._places[name].of(value)
        import_state(optimizer, self.named, kept)

    def __iter__(self) -> Iterator[ParamShard]:
        return iter(self.pieces)
