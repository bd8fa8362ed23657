"""Batch normalisation with stated statistics: over this rank, over fixed groups, or over all ranks.

`local` normalises each rank's micro batch; `group` normalises consecutive groups of `norm_group` images of
the global batch, so that ranks and micro batches do not change the numbers; `sync` normalises the micro
batches of all ranks together (on the CPU too, unlike torch's SyncBatchNorm). Running statistics are collected
in the passes of the player's own phases (`hpc/training/accumulation.py`) and committed once for each update,
averaged over all ranks: every rank holds the same buffers at every clock. Ioffe & Szegedy 2015; groups as
ghost batches, Hoffer et al. 2017.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data_shards.errors import UserError
from hpc.distributed.collectives import sum_, sum_grad
from hpc.distributed.comm import Comm


class Norm(_BatchNorm):
    """`nn.BatchNorm1d`, `2d` or `3d` with the same parameters and buffers: a plain network loads its weights.

    Collects statistics only inside `collecting`; what `plain` had frozen (its mode, its parameters) stays so.
    """

    stat_mean: Tensor
    stat_var: Tensor

    def __init__(self, plain: _BatchNorm, *, mode: str, group: int, comm: Comm) -> None:
        super().__init__(
            plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats
        )
        # The same objects, so what is frozen or shared stays so.
        self._parameters.update(plain._parameters)
        self._buffers.update(plain._buffers)
        self.training = plain.training
        self.mode, self.group, self.comm, self.collect = mode, group, comm, False
        like = plain.running_mean if plain.running_mean is not None else torch.zeros(plain.num_features)
        self.register_buffer("stat_mean", torch.zeros_like(like), persistent=False)
        self.register_buffer("stat_var", torch.zeros_like(like), persistent=False)
        # Not a buffer, so it stays in host memory and reading it does not wait for a GPU. A tensor, since
        # torch.compile would recompile the network for each value of a number.
        self.stat_count = torch.zeros((), dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [n, c, ...] by batch statistics in training, by running ones otherwise."""
        if not self.training and self.running_mean is not None:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.mode == "sync" and self.comm.world > 1:
            return self._all_ranks(x)
        if self.mode == "group" and len(x) > self.group:
            return torch.cat([self._block(block) for block in x.split(self.group)])
        return self._block(x)

    def _block(self, x: Tensor) -> Tensor:
        # With momentum 1 torch writes the batch's own mean and unbiased variance into the scratch buffers.
        mean, var = torch.zeros_like(self.stat_mean), torch.zeros_like(self.stat_var)
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self._keep(mean, var, len(x))
        return y

    def _all_ranks(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        others = (0, *range(2, x.dim()))
        shape = (-1, *[1] * (x.dim() - 2))
        count = x.numel() // x.shape[1] * self.comm.world
        mean = sum_grad(wide.sum(others), self.comm) / count
        centred = wide - mean.view(shape)
        var = sum_grad(centred.square().sum(others), self.comm) / count
        scale = torch.rsqrt(var + self.eps) * (1.0 if self.weight is None else self.weight)
        shift = torch.zeros_like(scale) if self.bias is None else self.bias
        self._keep(mean.detach(), var.detach() * (count / (count - 1)), len(x))
        return (centred * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        if self.collect and self.running_mean is not None:
            self.stat_mean.add_(mean, alpha=count)
            self.stat_var.add_(var, alpha=count)
            self.stat_count.add_(count)


def convert(module: nn.Module, *, mode: str, group: int, comm: Comm) -> nn.Module:
    """Replace every batch norm layer inside `module`, in place; a shared layer stays shared.

    `mode`: local | group | sync; `group`: images of one, for mode group. UserError for a lazy layer.
    """
    replaced: dict[nn.Module, Norm] = {}
    for owner in list(module.modules()):
        for name, child in owner._modules.items():
            if not isinstance(child, _BatchNorm) or isinstance(child, Norm):
                continue
            if not child.num_features:
                raise UserError(
                    f"{name} is a {type(child).__name__}, whose size is not known yet: name the number of "
                    "channels"
                )
            if child not in replaced:
                replaced[child] = Norm(child, mode=mode, group=group, comm=comm)
            owner._modules[name] = replaced[child]
    return module


def norms(module: nn.Module) -> list[Norm]:
    """List the converted layers of a module."""
    return [child for child in module.modules() if isinstance(child, Norm)]


@contextlib.contextmanager
def collecting(layers: list[Norm], on: bool = True) -> Iterator[None]:
    """Count the forward passes inside for the running statistics, or with `on=False` do not.

    Off for a second pass over images that were counted already.
    """
    before = [layer.collect for layer in layers]
    for layer in layers:
        layer.collect = on
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.collect = was


@torch.no_grad()
def discard(layers: list[Norm]) -> None:
    """Forget the statistics that the forward passes collected."""
    if layers:
        torch._foreach_zero_([buffer for m in layers for buffer in (m.stat_mean, m.stat_var)])
        torch._foreach_zero_([m.stat_count for m in layers])


@torch.no_grad()
def commit(layers: list[Norm], comm: Comm, finite: Tensor | None = None) -> None:
    """Move the running statistics by the average over all passes of the update, on all ranks alike.

    Reads nothing from the device. Every rank runs the same passes over as many images, so this rank's
    counts are known to be everyone's. `finite`: a bool on the device, equal on all ranks; where it is false
    the statistics stay as they were, and only the count of batches moves (None = true).
    """
    if not layers:
        return
    counts = torch.stack([layer.stat_count for layer in layers]).tolist()
    # The others took no part: a level that has not grown yet, frozen ones, or the phase collected nothing.
    ran = [layer for layer, count in zip(layers, counts, strict=True) if count]
    if ran:
        pieces = [buffer for layer in ran for buffer in (layer.stat_mean, layer.stat_var)]
        flat = sum_(torch.cat(pieces), comm)
        means = flat.split([len(piece) for piece in pieces])
        torch._foreach_div_(means, [float(count * comm.world) for count in counts if count for _ in range(2)])
        if finite is not None:
            flat.copy_(torch.where(finite, flat, torch.cat(_running(ran))))
        torch._foreach_add_([layer.get_buffer("num_batches_tracked") for layer in ran], 1)
        _move(ran, means)
    discard(layers)


def _running(layers: list[Norm]) -> list[Tensor]:
    """List the running statistics, two for each layer: its mean and its variance."""
    return [layer.get_buffer(name) for layer in layers for name in ("running_mean", "running_var")]


def _move(layers: list[Norm], means: Sequence[Tensor]) -> None:
    """Move the running statistics towards `means`, two for each layer: its mean and its variance."""
    alike: dict[float, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for layer, mean, var in zip(layers, means[::2], means[1::2], strict=True):
        running = _running([layer])
        if layer.momentum is None:  # the plain average of all updates so far
            weight = layer.get_buffer("num_batches_tracked").to(mean.dtype).reciprocal()
            for old, new in zip(running, (mean, var), strict=True):
                old.lerp_(new, weight)
        else:
            old_ones, new_ones = alike[layer.momentum]
            old_ones += running
            new_ones += [mean, var]
    for momentum, (old_ones, new_ones) in alike.items():
        torch._foreach_lerp_(old_ones, new_ones, momentum)
