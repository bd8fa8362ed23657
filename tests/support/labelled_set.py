"""Sets in memory for the tests of orders: identities, shards and labels, and what ranks ask for."""

from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

from data_shards.sampling.order import Order, Slots, rank_block

COLUMNS = ("ids", "sets", "positions", "repeat")


class LabelledSet(SimpleNamespace):
    """What orders read of a set."""

    def __len__(self) -> int:
        return int(self.shard_start[-1])


def labelled(sizes: list[int], num_shards: int, labels: dict[str, np.ndarray]) -> LabelledSet:
    """A set of identities; shards cut it evenly, also through the middle of an identity."""
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)
    cuts = (np.arange(num_shards + 1) * int(start[-1]) // num_shards).astype(np.uint64)
    identity = np.repeat(np.arange(len(sizes)), sizes)
    return LabelledSet(
        folder="/sets/train", identity_start=start, shard_start=cuts, labels={"identity": identity} | labels
    )


@st.composite
def sets(draw: st.DrawFn, smallest: int = 1) -> LabelledSet:
    """A set of up to 600 rows in up to 12 shards; labels: race -1 to 3 (uneven), class, quality, same."""
    sizes = draw(st.lists(st.integers(1, 20), min_size=smallest, max_size=30))
    random, total = np.random.default_rng(draw(st.integers(0, 2**31))), sum(sizes)
    race = random.choice([-1, 0, 1, 2, 3], total, p=[0.1, 0.6, 0.2, 0.08, 0.02]).astype(np.int32)
    quality = (random.random(total) ** draw(st.sampled_from([0, 1, 8]))).astype(np.float32)
    quality[random.random(total) < draw(st.sampled_from([0.0, 0.5]))] = 0
    quality[random.integers(total)] = 1
    labels = {"race": race, "class": np.maximum(race, 0), "quality": quality}
    labels["same"] = np.full(total, 0.1, np.float32)
    return labelled(sizes, draw(st.integers(1, 12)), labels)


def joined(parts: list[Slots]) -> Slots:
    return Slots(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


def whole(order: Order, clock: int, batch: int, world: int) -> Slots:
    """The global batch, put together from what the ranks ask for."""
    return joined(
        [order.slots(*rank_block(clock, batch, rank, world, unit=order.unit)) for rank in range(world)]
    )


def assert_equal(one: Slots, other: Slots) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
