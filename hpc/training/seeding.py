"""Seeds of torch's generator: for initial weights, and for each micro batch of a step."""

import contextlib
from collections.abc import Iterator

import torch

from data_shards import counter_rng


def seed_torch(seed: int) -> None:
    torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights: the same on every rank, from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(int(counter_rng.key(seed, "init")))
        yield
