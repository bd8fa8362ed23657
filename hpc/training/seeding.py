"""Seeds of torch's generator: for initial weights, and for each micro batch of a step."""

import contextlib
from collections.abc import Iterator

import torch

from data_shards import counter_rng


def seed_torch(seed: int) -> None:
    """Seed torch's generators, of the CPU and of GPUs in use, with the low 63 bits of `seed`.

    `torch.manual_seed` does the same, but notes a stack trace for each kind of device that is not in use: 2 %
    of a small step.
    """
    low = seed & 0x7FFF_FFFF_FFFF_FFFF
    torch.default_generator.manual_seed(low)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(low)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights inside from the run's seed, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(int(counter_rng.key(seed, "init")))
        yield
