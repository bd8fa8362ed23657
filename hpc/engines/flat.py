"""The flat engine: it sums flattened gradients, on a GPU in buckets while the backward pass still runs.

It keeps the raw module, so it takes any number of players, any kind of loss, parameters that take no part,
and parameters of which each rank holds some rows (`sharded.py`). With one rank it is the bare module.
"""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from hpc.distributed.collectives import sum_
from hpc.distributed.comm import Comm
from hpc.engines.base import Engine
from hpc.engines.buckets import GradientBuckets


class Flat(Engine):
    """Raw module; flattened gradients are summed over the ranks.

    bucket_mb: size of the buckets that leave during the backward pass (0 = one all-reduce after it, which is
        as fast where ranks compute and sum on the same cores)
    """

    name = "flat"
    second_order = True
    takes_shards = True

    def __init__(self, module: nn.Module, comm: Comm, *, bucket_mb: float = 0.0) -> None:
        super().__init__(module, comm)
        whole = [p for name, p in self.named if name not in self.rows]
        cut = bucket_mb > 0 and comm.world > 1 and bool(whole)
        self.buckets = GradientBuckets(whole, comm, bucket_mb) if cut else None

    def micro(self, last: bool) -> AbstractContextManager[None]:
        return self.buckets.watching() if last and self.buckets else contextlib.nullcontext()

    def _own_gradients(self) -> list[Tensor]:
        """Return the gradients of this rank's rows of sharded parameters."""
        return [p.grad for name, p in self.named if p.grad is not None and name in self.rows]

    @torch.no_grad()
    def reduce(self) -> None:
        """Average the gradients over the ranks.

        A sharded parameter already has the sum over all ranks' losses (the collectives of
        `hpc/distributed/collectives.py` send gradients back so), and is only divided.
        """
        grads = self.gradients()
        if self.comm.world == 1:
            return
        if own := self._own_gradients():
            torch._foreach_div_(own, float(self.comm.world))
        if self.buckets:
            self.buckets.finish()
            return
        if not grads:
            return
        flat = sum_(torch.cat([grad.reshape(-1) for grad in grads]), self.comm).div_(self.comm.world)
        for grad, piece in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(piece.view(grad.shape))

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Return the norm of the gradients; for rows of other ranks by one more all-reduce of one number."""
        whole = super().norm()
        if not self.rows:
            return whole
        own = self._own_gradients() or [whole.new_zeros(1)]
        squares = torch.stack(list(torch._foreach_norm(own))).square().sum()
        return (whole.square() + sum_(squares, self.comm)).sqrt()
