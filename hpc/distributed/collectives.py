"""The few collectives that the suite needs. With one rank they are the identity.

Control values travel on the CPU by gloo, gradients and embeddings on the device. All ranks call each of them;
how the ranks find each other is in `rendezvous.py` and `comm.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data_shards.errors import UserError
from hpc.distributed.comm import Comm

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13


def gather_vector(values: list[float], comm: Comm) -> list[list[float]]:
    """Return every rank's short list of numbers (float64), by rank; the lists are equally long."""
    if comm.world == 1:
        return [values]
    vector = torch.tensor(values, dtype=torch.float64)
    everyone = torch.empty(comm.world * len(values), dtype=torch.float64)
    _all_gather(everyone, vector, group=comm.group)
    return everyone.view(comm.world, len(values)).tolist()


def sum_(tensor: Tensor, comm: Comm) -> Tensor:
    """Sum over the ranks, in place."""
    if comm.world > 1:
        dist.all_reduce(tensor, group=comm.group)
    return tensor


def broadcast(value: Any, comm: Comm) -> Any:
    """Return rank 0's value on every rank (small Python objects of this run's own ranks)."""
    if comm.world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=comm.group, device=torch.device("cpu"))
    return box[0]


def gather_objects(value: Any, comm: Comm) -> list[Any]:
    """Return every rank's value, by rank (small Python objects of this run's own ranks)."""
    if comm.world == 1:
        return [value]
    everyone: list[Any] = [None] * comm.world
    dist.all_gather_object(everyone, value, group=comm.group)
    return everyone


def gather(tensor: Tensor, comm: Comm) -> Tensor:
    """Return every rank's [n, ...] as [world * n, ...] in rank order, without gradient; n is equal on all."""
    if comm.world == 1:
        return tensor
    everyone = tensor.new_empty((comm.world * tensor.shape[0], *tensor.shape[1:]))
    _all_gather(everyone, tensor.detach().contiguous(), group=comm.group)
    return everyone


class _Gather(torch.autograd.Function):
    """Several tensors of n rows in one message of bytes; only the first one carries a gradient."""

    @staticmethod
    def forward(ctx: Any, comm: Comm, tensor: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        ctx.comm, ctx.rows = comm, tensor.shape[0]
        parts = [part.detach().contiguous() for part in (tensor, *others)]
        raw = [part.reshape(len(part), -1).view(torch.uint8) for part in parts]
        columns = gather(torch.cat(raw, 1), comm).split([part.shape[1] for part in raw], 1)
        gathered = tuple(
            column.contiguous().view(part.dtype).reshape(-1, *part.shape[1:])
            for column, part in zip(columns, parts, strict=True)
        )
        ctx.mark_non_differentiable(*gathered[1:])
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Through autograd again, as in every collective of this file: it can be differentiated to any order.
        summed = sum_grad(grads[0], ctx.comm)
        rows = summed[ctx.comm.rank * ctx.rows : (ctx.comm.rank + 1) * ctx.rows]
        return None, rows, *[None] * (len(grads) - 1)


def gather_grad(tensor: Tensor, comm: Comm) -> Tensor:
    """Gather with the gradient: a rank's rows receive the sum of the gradients of all ranks' losses.

    Differentiable to any order.
    """
    return tensor if comm.world == 1 else _Gather.apply(comm, tensor)[0]


def gather_grad_with(tensor: Tensor, others: Sequence[Tensor], comm: Comm) -> tuple[Tensor, ...]:
    """Return `gather_grad` of `tensor` [n, ...] and `gather` of the `others` [n, ...], by one message."""
    return (tensor, *others) if comm.world == 1 else _Gather.apply(comm, tensor, *others)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, comm: Comm) -> Tensor:
        ctx.comm = comm
        return sum_(tensor.clone(memory_format=torch.contiguous_format), comm)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return sum_grad(grads[0], ctx.comm), None


def sum_grad(tensor: Tensor, comm: Comm) -> Tensor:
    """Sum over the ranks with the gradient, which is the sum of the gradients of all ranks' losses.

    Differentiable to any order.
    """
    return tensor if comm.world == 1 else _Sum.apply(tensor, comm)


def gather_to_main(value: Any, comm: Comm) -> list[Any]:
    """Return every rank's value, by rank, on rank 0; elsewhere only the rank's own. Values may be large."""
    if comm.world == 1:
        return [value]
    everyone: list[Any] = [None] * comm.world
    dist.gather_object(value, everyone if comm.main else None, dst=0)
    return everyone if comm.main else [value]


def agree_or_raise(error: str, comm: Comm) -> None:
    """End all ranks together with the first rank's message where any rank has one."""
    for rank, message in enumerate(gather_objects(error, comm)):
        if message:
            raise UserError(message if comm.world == 1 else f"rank {rank}: {message}")
