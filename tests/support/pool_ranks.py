"""What `test_image_pool.py` runs on every rank."""

import torch
from torch import Tensor

from hpc.distributed.comm import Comm
from hpc.training.image_pool import ImagePool

SIZE = 10


def image(positions: Tensor) -> Tensor:
    """Make small images [n, 3, 2, 2] that state their position."""
    return positions.float()[:, None, None, None] + torch.arange(12.0).view(3, 2, 2) / 100


def judged(comm: Comm, batch: int, updates: int, micro: int, clock: int = 0, state: dict | None = None):  # type: ignore[no-untyped-def]
    """Return the numbers of the images judged by this rank, update by update, and the state at the end."""
    pool = ImagePool(SIZE, seed=3, name="a")
    if state is not None:
        pool.load_state(state)
    seen, share = [], batch // comm.world
    for start in range(clock, clock + updates * batch, batch):
        own = torch.arange(start + comm.rank * share, start + (comm.rank + 1) * share)
        for part in own.split(micro or share):
            found = pool.exchange(image(part), part, clock=start, batch=batch, comm=comm)
            seen += found[:, 0, 0, 0].tolist()
    return torch.tensor(seen).view(updates, share), pool.state()
