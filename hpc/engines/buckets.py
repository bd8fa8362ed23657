"""Sums gradients over the ranks in buckets, while the backward pass that makes them still runs.

What is made first, the gradients of the last layers, travels first. Buckets leave in one order on all ranks,
whatever each of them has ready: a bucket waits for those before it, and what the pass did not complete
(parameters that take no part) leaves at the end. The layout depends on the parameters alone, so a resumed run
sums in the same order.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpc.distributed.comm import Comm


class _Sent(NamedTuple):
    gradients: list[Tensor]
    flat: Tensor  # their values, summed when `work` is done
    work: dist.Work


class GradientBuckets:
    """The gradients of some parameters of one player, in buckets of about `size_mb` megabytes each."""

    def __init__(self, parameters: Sequence[nn.Parameter], comm: Comm, size_mb: float) -> None:
        self.comm = comm
        self.buckets: list[list[nn.Parameter]] = []
        self._number: dict[int, int] = {}  # id of a parameter -> its bucket
        room = 0.0
        for parameter in reversed(parameters):
            if room <= 0:
                self.buckets.append([])
                room = size_mb * 2**20
            room -= parameter.numel() * parameter.element_size()
            self.buckets[-1].append(parameter)
            self._number[id(parameter)] = len(self.buckets) - 1
            parameter.register_post_accumulate_grad_hook(self._ready)
        self._watching = False
        self._reset()

    def _reset(self) -> None:
        self._missing = [len(bucket) for bucket in self.buckets]  # gradients that are not ready
        self._sent: list[_Sent] = []
        self._next = 0  # bucket to leave

    @property
    def sent(self) -> int:
        """How many buckets have left since `finish`."""
        return self._next

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Let buckets leave as a backward pass completes them; for the last one of an update."""
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    def _ready(self, parameter: Tensor) -> None:
        if not self._watching:
            return
        self._missing[self._number[id(parameter)]] -= 1
        while self._next < len(self.buckets) and not self._missing[self._next]:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        gradients = [p.grad for p in self.buckets[self._next] if p.grad is not None]
        self._next += 1
        if gradients:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            work = dist.all_reduce(flat, group=self.comm.group, async_op=True)
            self._sent.append(_Sent(gradients, flat, work))

    @torch.no_grad()
    def finish(self) -> None:
        """Send what has not left, wait for all, and leave the averages in the gradients."""
        while self._next < len(self.buckets):
            self._send()
        for gradients, flat, work in self._sent:
            work.wait()
            flat.div_(self.comm.world)
            sizes = [gradient.numel() for gradient in gradients]
            for gradient, piece in zip(gradients, flat.split(sizes), strict=True):
                gradient.copy_(piece.view(gradient.shape))
        self._reset()
