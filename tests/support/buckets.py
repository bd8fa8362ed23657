"""What `test_buckets.py` runs on every rank: one update of a flat engine, with buckets and without."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc.distributed.comm import Comm
from hpc.engines.flat import Flat
from tests.support import engines

SMALL = 0.0004  # MB: about a hundred parameters, so that each layer has a bucket


class Net(nn.Module):
    """A layer that takes no part is between those that do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.last = nn.Linear(8, 40), nn.Linear(40, 40), nn.Linear(40, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(rows)))


def update(comm: Comm, bucket_mb: float, unused: bool) -> tuple[dict[str, Tensor], list[int]]:
    """Gradients of two micro batches by name, and the buckets that had left before `reduce`, in each."""
    torch.manual_seed(3)
    net = Net()
    if not unused:
        del net.unused
    engine = Flat(net, comm, bucket_mb=bucket_mb)
    rows = torch.randn(12, 8)[comm.rank :: comm.world]
    left = []
    for _ in range(2):  # a second update begins anew
        net.zero_grad(set_to_none=True)
        left = []
        for last in (False, True):
            with engine.micro(last=last):
                engine.backward(F.softplus(engine.net(rows)).mean() / 2)
                left.append(engine.buckets.sent if engine.buckets else 0)
        engine.reduce()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}, left


def both_ways(comm: Comm) -> list[tuple[dict[str, Tensor], list[int]]]:
    return [update(comm, size, unused) for unused in (True, False) for size in (0.0, SMALL)]


def by_runtime(comm: Comm, job: str, micro: int) -> dict[str, Tensor]:
    """`engines.by_runtime` of flat with buckets, whatever the device is."""
    from unittest import mock

    from hpc.engines import factory

    with mock.patch.object(factory, "Flat", lambda module, comm, **_: Flat(module, comm, bucket_mb=SMALL)):
        return engines.by_runtime(comm, job, "sgd", "flat", micro)


def jobs(comm: Comm) -> dict[tuple[str, int], dict[str, Tensor]]:
    return {(job, micro): by_runtime(comm, job, micro) for job in ("sample", "bce") for micro in (0, 4)}
