"""Seeds of torch's generator: for initial weights, and for each micro batch of a step."""

import contextlib
from collections.abc import Iterator

import torch

from data_shards import counter_rng


def seed_torch(seed: int) -> None:
    """Seed torch's generators with the low 63 bits of `seed`."""
    torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights inside from the run's seed, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(int(counter_rng.key(seed, "init")))
        yield
