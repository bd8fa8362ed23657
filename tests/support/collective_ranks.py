"""What `test_collectives.py` runs on every rank."""

from typing import Any

import torch
import torch.distributed as dist

from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.task import Batch, Phase
from hpc.tasks.siamese import Siamese

KEYS = {"name": "siamese", "trunk": "small", "embedding": 8, "margin": 1.0, "temperature": 0.1}


def gathered(comm: Comm) -> list[Any]:
    """Gather floats, large integers and flags of each rank in one message; return them and the gradient."""
    rows = torch.full((2, 3), comm.rank + 0.1, dtype=torch.float32, requires_grad=True)
    ids = torch.tensor([2**53 + 1, -comm.rank])
    flags = torch.tensor([comm.rank == 0, True])
    floats, integers, bools = collectives.gather_grad_with(rows, (ids, flags), comm)
    assert not integers.requires_grad
    (floats * torch.arange(len(floats))[:, None]).sum().backward()
    assert rows.grad is not None
    return [floats.detach(), integers, bools, rows.grad]


def messages_of_an_update(comm: Comm, loss: str) -> list[str]:
    """Return the collectives of one forward and backward pass of the siamese loss."""
    calls: list[str] = []
    names = ["all_reduce", "all_gather_into_tensor", "all_gather_single"]

    def counting(name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return call(*args, **kwargs)

        return counted

    for name in names:
        if hasattr(dist, name):
            setattr(dist, name, counting(name, getattr(dist, name)))
    collectives._all_gather = counting("all_gather", collectives._all_gather)
    task = Siamese(Config(task=KEYS | {"loss": loss}))
    task.comm = comm
    nets = task.players()
    outputs = torch.nn.functional.normalize(torch.randn(4, 8), dim=1).requires_grad_()
    rows = torch.arange(4) + 4 * comm.rank
    batch = Batch({"image": torch.zeros(4, 3, 8, 8)}, {"identity": rows // 2}, rows[:, None], rows)
    task.couple(Phase("embed", "net", coupled=True), nets, outputs, batch, 0).backward()
    return calls
