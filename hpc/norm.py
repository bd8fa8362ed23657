"""Batch normalisation whose statistics are stated: over this rank, over fixed groups, or over all ranks.

`local` normalises each rank's micro batch; `group` normalises consecutive groups of `norm_group` pictures
of the global batch, so that ranks and micro batches do not change the numbers; `sync` normalises the micro
batches of all ranks together (on the CPU too, unlike torch's SyncBatchNorm). Running statistics are
collected in the forward pass and committed once for each update, averaged over all ranks: every rank holds
the same buffers at every clock. Ioffe & Szegedy 2015; groups as ghost batches, Hoffer et al. 2017.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc.dist import Dist, sum_, sum_grad


class Norm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the same parameters and buffers, so its weights load into a plain network."""

    stat_mean: Tensor
    stat_var: Tensor
    stat_count: Tensor

    def __init__(self, plain: nn.BatchNorm2d, *, mode: str, group: int, here: Dist) -> None:
        super().__init__(plain.num_features, eps=plain.eps, momentum=plain.momentum, affine=plain.affine)
        self.load_state_dict(plain.state_dict())
        self.mode, self.group, self.here, self.collect = mode, group, here, True
        self.register_buffer("stat_mean", torch.zeros(plain.num_features), persistent=False)
        self.register_buffer("stat_var", torch.zeros(plain.num_features), persistent=False)
        self.register_buffer("stat_count", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> the same, by batch statistics in training, by running ones otherwise."""
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.mode == "sync" and self.here.world > 1:
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
        wide = x.float()
        count = x.numel() // x.shape[1] * self.here.world
        mean = sum_grad(wide.sum((0, 2, 3)), self.here) / count
        centred = wide - mean[:, None, None]
        var = sum_grad(centred.square().sum((0, 2, 3)), self.here) / count
        scale = torch.rsqrt(var + self.eps) * (1.0 if self.weight is None else self.weight)
        shift = torch.zeros_like(scale) if self.bias is None else self.bias
        self._keep(mean.detach(), var.detach() * (count / (count - 1)), len(x))
        return (centred * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        if self.collect:
            self.stat_mean.add_(mean, alpha=count)
            self.stat_var.add_(var, alpha=count)
            self.stat_count.add_(count)


def convert(module: nn.Module, *, mode: str, group: int, here: Dist) -> nn.Module:
    """Replace every `nn.BatchNorm2d` inside `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, Norm):
            setattr(module, name, Norm(child, mode=mode, group=group, here=here))
        else:
            convert(child, mode=mode, group=group, here=here)
    return module


def norms(module: nn.Module) -> list[Norm]:
    return [child for child in module.modules() if isinstance(child, Norm)]


@contextlib.contextmanager
def not_collecting(layers: list[Norm]) -> Iterator[None]:
    """For a second forward pass over pictures that were counted already."""
    for layer in layers:
        layer.collect = False
    try:
        yield
    finally:
        for layer in layers:
            layer.collect = True


@torch.no_grad()
def discard(layers: list[Norm]) -> None:
    """Forget what the forward passes collected."""
    for layer in layers:
        for buffer in (layer.stat_mean, layer.stat_var, layer.stat_count):
            buffer.zero_()


@torch.no_grad()
def commit(layers: list[Norm], here: Dist) -> None:
    """Move the running statistics by the average over all passes of the update, on all ranks alike."""
    if not layers:
        return
    pieces = [buffer.reshape(-1) for m in layers for buffer in (m.stat_mean, m.stat_var, m.stat_count)]
    flat = sum_(torch.cat(pieces), here)
    place = 0
    for layer in layers:
        size = layer.num_features
        mean, var = flat[place : place + size], flat[place + size : place + 2 * size]
        count = flat[place + 2 * size]
        place += 2 * size + 1
        if count > 0:  # else the layer took no part: a level that has not grown yet
            assert layer.running_mean is not None
            assert layer.running_var is not None
            momentum = layer.momentum or 0.1
            layer.running_mean.lerp_(mean / count, momentum)
            layer.running_var.lerp_(var / count, momentum)
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(1)
    discard(layers)
