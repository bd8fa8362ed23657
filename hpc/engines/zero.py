"""The DeepSpeed engine: ZeRO 0-3 in fp32 (bf16 is autocast, as everywhere). Imported only if used.

DeepSpeed moves and cuts: it reduces gradients, keeps the flat partitions, gathers the new weights. The update
itself is our optimizer's, on this rank's pieces of the parameters (`hpc/engines/param_shards.py`), and a
checkpoint is the one layout of `hpc/checkpoints/store.py`; DeepSpeed's own, which unpickles, is never used.
Its settings and refusals: `hpc/config/deepspeed.py`.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.config import deepspeed as zero_config
from hpc.config.schema import Config
from hpc.distributed.collectives import agree_or_raise, sum_
from hpc.distributed.comm import Comm
from hpc.engines.base import Engine
from hpc.engines.deepspeed_setup import import_deepspeed
from hpc.engines.param_shards import ParamShard, ParamShards, ProxyOptimizer, shard_of
from hpc.optim.ema import Ema
from hpc.optim.guard import guarded
from hpc.optim.state import load_module


class ZeRO(Engine):
    """One player under DeepSpeed (Rajbhandari et al. 2020, "ZeRO", section 5).

    The network is called unwrapped: DeepSpeed's hooks are on its parameters and modules, and the `forward` of
    DeepSpeed's own wrapper would switch autocast off. Raises UserError for a parameter without a shape.
    """

    name = "deepspeed"

    def __init__(self, module: nn.Module, comm: Comm, config: Config) -> None:
        super().__init__(module, comm)
        for name, p in module.named_parameters():
            if not p.dim():
                raise UserError(
                    f"engine=deepspeed: {name} is a number without a shape, which DeepSpeed cannot send: "
                    "give it the shape [1], or use engine=ddp"
                )
        self.stage = config.engine.deepspeed.stage
        self.settings = zero_config.settings(config)
        self.timeout = config.hang_timeout
        self.parts: ParamShards | None = None
        self._touched: set[str] = set()
        self._skeleton = copy.deepcopy(module).cpu().requires_grad_(False) if self.stage == 3 else None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Hand module and optimizer to DeepSpeed."""
        super().attach(optimizer)
        self.optimizer = optimizer
        deepspeed = import_deepspeed(self.comm, self.timeout)
        shapes = {name: p.shape for name, p in self.named}
        proxy = ProxyOptimizer(optimizer.param_groups) if self.stage else optimizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.ds, *_ = deepspeed.initialize(
                model=self.module,
                optimizer=proxy,
                config=copy.deepcopy(self.settings),
                dist_init_required=False,
            )
        if isinstance(proxy, ProxyOptimizer):
            cut = self._cut_weights if self.stage == 3 else self._cut_state
            self.parts = ParamShards(
                [shard for name, p in self.named for shard in cut(name, p)], shapes, self.comm
            )
            self.parts.rebind(optimizer, self.named)
            proxy.on_step = self._step_flat
        for name, p in self.named:
            p.register_post_accumulate_grad_hook(self._noting(name))

    def _noting(self, name: str) -> Callable[[Tensor], None]:
        return lambda _: self._touched.add(name)

    def _cut_state(self, name: str, p: Any) -> Iterator[ParamShard]:
        """Yield this rank's shard of `p` under ZeRO 1 and 2, where whole weights stay everywhere."""
        link = p._hp_mapping
        if link is not None:
            flat = self.ds.optimizer.single_partition_of_fp32_groups[link.param_group_index]
            at = link.hp_fragment_address
            yield shard_of(name, link.lp_fragment_address.start, flat, at.start, at.numel)

    def _cut_weights(self, name: str, p: Any) -> Iterator[ParamShard]:
        """Yield this rank's shard of `p` under ZeRO 3, less the padding at its end."""
        zero = self.ds.optimizer
        group, offset, numel = zero.grad_position[zero.get_param_id(p)]
        start = numel * self.comm.rank
        numel = min(numel, p.ds_numel - start)
        if numel > 0:
            yield shard_of(name, start, zero.fp32_partitioned_groups_flat[group], offset, numel)

    @contextlib.contextmanager
    def _micro(self, last: bool) -> Iterator[None]:
        if self.stage:
            # DeepSpeed's `forward`, which is not called here, counts the micro batches so.
            self.ds.optimizer.clear_backward_seen_flag()
        self.ds.set_gradient_accumulation_boundary(last)
        yield

    def micro(self, last: bool) -> contextlib.AbstractContextManager[None]:
        return self._micro(last)

    def backward(self, loss: Tensor) -> None:
        if self.stage:
            self.ds._backward_prologue()
        self.ds.backward(loss, scale_wrt_gas=False)

    def backward_cached(self, loss: Tensor, leaf: Tensor) -> Callable[[], Tensor]:
        """Keep the gradients of the loss itself aside until the last micro batch.

        Outside a pass of DeepSpeed no gradient may reach a parameter: its hooks would reduce it at once.
        """
        own = _leaves(loss) & {p for _, p in self.named}
        if own and self.stage == 3:
            name = next(name for name, p in self.named if p in own)
            raise UserError(
                f"{name} is used by the loss itself, outside the passes in which ZeRO 3 gathers it: use "
                "micro_batch=0 or engine.deepspeed.stage=2"
            )
        leaf.grad, *grads = torch.autograd.grad(loss, [leaf, *own])
        pairs = list(zip(own, grads, strict=True))
        return lambda: sum(((p * grad).sum() for p, grad in pairs), torch.zeros((), device=self.comm.device))

    def reduce(self) -> None:
        """Drop the zeros of parameters that took no part: DeepSpeed averaged in the last backward pass."""
        if not self.stage:  # zeros would be stepped
            for name, p in self.named:
                if name not in self._touched:
                    p.grad = None

    def _gradient(self, shard: ParamShard, parameters: dict[str, Any]) -> Tensor:
        """Return the averaged gradient of a shard, before the step."""
        p = parameters[shard.name]
        if self.stage == 3:
            from deepspeed.utils import safe_get_local_grad

            return safe_get_local_grad(p).reshape(-1)[: shard.numel]
        return p._hp_mapping.get_lp_grad_fragment(p._index_in_param_group).reshape(-1)

    def gradients(self) -> list[Tensor]:
        """Return those of this rank's shards under ZeRO; parameters that took no part are left out."""
        if self.parts is None:
            return super().gradients()
        parameters = dict(self.named)
        return [self._gradient(shard, parameters) for shard in self.parts if shard.name in self._touched]

    def norm(self) -> Tensor:
        if self.parts is None:
            return super().norm()
        norms = [
            norm.to(self.comm.device) for norm in torch._foreach_norm(self.gradients() or [torch.zeros(1)])
        ]
        return sum_(torch.stack(norms).square().sum(), self.comm).sqrt()

    def step(self, optimizer: torch.optim.Optimizer, clip: float, norm: Tensor, finite: Tensor) -> None:
        self._scale = (clip / (norm + 1e-6)).clamp(max=1.0) if clip else None
        self._finite = finite
        if self.parts is None and self._scale is not None:
            torch._foreach_mul_(self.gradients(), self._scale)
        # Where pieces are stepped, their gradients are in place only in `_step_flat`.
        with guarded(optimizer, finite) if self.parts is None else contextlib.nullcontext():
            self.ds.step()
        self._touched.clear()

    def _step_flat(self, flat: Tensor) -> None:
        """Step the pieces of one flat tensor, whose gradient DeepSpeed has put in place."""
        assert self.parts is not None
        assert flat.grad is not None
        own = [shard for shard in self.parts if shard.flat is flat and shard.name in self._touched]
        if not own:
            return
        for shard in own:
            shard.piece.grad = flat.grad.narrow(0, shard.offset, shard.numel)
        if self._scale is not None:
            torch._foreach_mul_(
                [flat.grad.narrow(0, shard.offset, shard.numel) for shard in own], self._scale.to(flat.device)
            )
        with guarded(self.optimizer, self._finite):
            self.optimizer.step()
        for shard in own:
            shard.piece.grad = None

    def whole(self) -> nn.Module:
        """Return a full copy of the network under ZeRO 3, else the network itself. All ranks call it."""
        if self._skeleton is None or self.parts is None:
            return self.module
        self._spread({shard.name: shard.piece for shard in self.parts}, self._skeleton)
        for copied, buffer in zip(self._skeleton.buffers(), self.module.buffers(), strict=True):
            copied.copy_(buffer)
        if self.comm.device.type == "cpu":
            return self._skeleton
        return copy.deepcopy(self._skeleton).to(self.comm.device)

    @torch.no_grad()
    def _spread(self, values: dict[str, Tensor], target: nn.Module) -> None:
        """Put the pieces of all ranks into the parameters of `target`, on all ranks."""
        assert self.parts is not None
        full = self.parts.gather_full(values, everywhere=True)
        for name, p in target.named_parameters():
            if name in full:
                p.copy_(full[name])

    def average(self, ema: Ema, clock_after: int, batch: int) -> None:
        """Move the average; under ZeRO 3 only this rank's pieces of it, which `sync_full` makes whole."""
        if self.stage < 3 or self.parts is None:
            return super().average(ema, clock_after, batch)
        averages = self._pieces_of(ema.module)
        weights: list[Tensor] = [shard.piece.to(self.comm.device) for shard in self.parts]
        return ema.update_pieces(list(averages.values()), weights, self.module, clock_after, batch)

    def _pieces_of(self, whole: nn.Module) -> dict[str, Tensor]:
        assert self.parts is not None
        parameters = dict(whole.named_parameters())
        return {shard.name: shard.of(parameters[shard.name].view(-1)) for shard in self.parts}

    def sync_full(self, ema: Ema) -> None:
        if self.stage == 3:
            self._spread(self._pieces_of(ema.module), ema.module)

    def export_optim(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        return self.parts.export_state(optimizer) if self.parts else super().export_optim(optimizer)

    def import_optim(self, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
        if self.parts is None:
            return super().import_optim(optimizer, tensors)
        error = ""
        try:
            self.parts.import_state(optimizer, tensors)
        except UserError as failure:
            error = str(failure)
        return agree_or_raise(error, self.comm)  # another rank's pieces may have fitted

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], what: str) -> None:
        target = self._skeleton or self.module
        load_module(target, tensors, what)
        if self.parts is None:
            return
        parameters = dict(target.named_parameters())
        for shard in self.parts:
            shard.piece.copy_(shard.of(parameters[shard.name]))
        if self.stage < 3:
            return
        for buffer, saved in zip(self.module.buffers(), target.buffers(), strict=True):
            buffer.copy_(saved)
        zero = self.ds.optimizer
        zero.parameter_offload.partition_all_parameters()
        own: dict[str, Any] = dict(self.named)
        for shard in self.parts:
            own[shard.name].ds_tensor.data.view(-1)[: shard.numel].copy_(shard.piece)
        for name, p in self.module.named_parameters():
            if name not in own:  # frozen: DeepSpeed cuts it, and no optimizer knows it
                piece: Tensor = p.ds_tensor.data.view(-1)  # type: ignore[attr-defined]
                source = parameters[name].view(-1)[piece.numel() * self.comm.rank :][: piece.numel()]
                piece[: source.numel()].copy_(source)
        if zero.persistent_parameters:  # small ones are kept whole everywhere
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)


def _leaves(loss: Tensor) -> set[Any]:
    """Return the tensors at the ends of the graph of `loss`."""
    leaves, seen, ahead = set(), set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(node.variable)
        ahead += [following for following, _ in node.next_functions]
    return leaves
