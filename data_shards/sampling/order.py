"""The order of samples: pure functions from a place in the endless stream of slots to sample ids.

A slot is one training example; its clock position identifies it for ever. Nothing is carried from batch to
batch: rank and world only say which positions are asked for, so any number of ranks, even one that changes in
mid-epoch, reads the same stream. Shuffling is done in windows of shards, so that slow storage is read nearly
in sequence, and no array is as long as the set. Here: plain, groups and unpaired. By weight: `weighted.py`.
In shares: `mixed.py`. By name: `orders.py`. Randomness: `counter_rng.py`. Read next: `loading/loader.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.sampling.rows import Rows, Shards

WINDOW = 65_536  # samples among which neighbours in the stream are drawn, at least
WINDOW_SHARDS = 4  # shards of a window, at least


@dataclass(frozen=True)
class Slots:
    """Slots of the stream. Members: 1, 2 of an A/B pair, 4 of a mosaic."""

    ids: np.ndarray  # [count, members] int64: row numbers in their set
    sets: np.ndarray  # [count, members] int8: which set
    positions: np.ndarray  # [count] int64: clock positions
    # [count] bool: this image was already in the epoch and fills up its group; false in orders without groups
    repeat: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, positions: np.ndarray, rows: Sequence[Rows]) -> "Slots":
        """Return slots without repeats; rows: what each member [m] of `ids` [count, m] is drawn from."""
        sets = np.array([part.number for part in rows], np.int8)
        return cls(ids, np.tile(sets, (len(ids), 1)), positions, np.zeros(len(ids), bool))


class Order(Protocol):
    """An endless stream of slots, in epochs of `epoch_slots`."""

    epoch_slots: int
    members: int
    pairs: bool  # whether the two members are of two kinds, A and B, with labels of their own
    unit: int  # slots that must not be split between ranks: batches are multiples of it

    def slots(self, first: int, count: int) -> Slots: ...
    def at(self, positions: np.ndarray) -> Slots: ...


def rank_block(clock: int, batch: int, rank: int, world: int, *, unit: int = 1) -> tuple[int, int]:
    """(first position, count) of a rank's contiguous share of the global batch that starts at `clock`.

    Raises UserError unless the batch is a multiple of world x unit.
    """
    step = world * unit
    if batch < 1 or batch % step:
        lower, upper = batch // step * step, (batch // step + 1) * step
        use = f"use {lower} or {upper}" if lower > 0 else f"use {upper}"
        of = f" of groups of {unit}" if unit > 1 else ""
        raise UserError(f"batch={batch} is not divisible by {world} ranks{of}: {use}")
    share = batch // world
    return clock + rank * share, share


def evaluation_blocks(n: int, batch: int, rank: int, world: int) -> list[range]:
    """The blocks of `batch` rows of a rank when each of n is visited once: dealt in turn, without padding.

    The same rows stand together at any world size, since what a network computes depends on its batch in the
    last bits.
    """
    return [range(low, min(low + batch, n)) for low in range(rank * batch, n, world * batch)]


@dataclass(frozen=True)
class _Epoch:
    """One epoch's permutation of shards, cut into windows. Units are samples (plain) or groups (P x K)."""

    stream: np.ndarray  # of the randomness inside windows
    shards: np.ndarray  # [S] shard numbers in this epoch's order
    start: np.ndarray  # [S + 1] units before each of them
    windows: np.ndarray  # [W + 1] units before each window


class Windows:
    """Units in shards, permuted anew in each epoch: first the shards, then the units within a window.

    Every epoch is a bijection of [0, total); `locate` computes any part of it on its own.
    """

    def __init__(self, counts: np.ndarray, stream: np.uint64, window: int) -> None:
        self.first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.total = int(self.first[-1])
        self.stream = stream
        mean = max(1.0, self.total / max(1, len(counts)))
        shards = min(len(counts), max(WINDOW_SHARDS, round(window / mean)))
        self.number = max(1, len(counts) // max(1, shards))
        # Even cuts, so that no small window is left over.
        self.cuts = np.arange(self.number + 1) * len(counts) // self.number
        self.epoch = lru_cache(maxsize=3)(self._epoch)

    def _epoch(self, number: int) -> _Epoch:
        stream = counter_rng.derive(self.stream, np.int64(number))
        num_shards = len(self.first) - 1
        shards = counter_rng.permute(stream, np.arange(num_shards), num_shards)
        counts = self.first[shards + 1] - self.first[shards]
        start = np.concatenate([[0], np.cumsum(counts)])
        return _Epoch(stream, shards, start, start[self.cuts])

    def locate(self, epoch: int, places: np.ndarray, member: int = 0) -> np.ndarray:
        """The units at `places` of an epoch. Each member has a permutation of its own, window by window."""
        table = self.epoch(epoch)
        window = np.searchsorted(table.windows, places, "right") - 1
        base = table.windows[window]
        stream = counter_rng.derive(table.stream, window)
        if member:
            stream = counter_rng.derive(stream, np.int64(member))
        place = base + counter_rng.permute(stream, places - base, table.windows[window + 1] - base)
        nth = np.searchsorted(table.start, place, "right") - 1
        return self.first[table.shards[nth]] + place - table.start[nth]


def by_epoch(positions: np.ndarray, length: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Group positions by epoch: [(epoch, rows of the positions, their places in the epoch)]."""
    epochs = positions // length
    parts = []
    for epoch in np.unique(epochs).tolist():
        rows = np.flatnonzero(epochs == epoch)
        parts.append((epoch, rows, positions[rows] - epoch * length))
    return parts


class Stream:
    """An order that computes slots at any positions; consecutive positions are the common case."""

    pairs = False

    def slots(self, first: int, count: int) -> Slots:
        """The `count` slots that start at position `first`."""
        return self.at(np.arange(first, first + count, dtype=np.int64))

    def at(self, positions: np.ndarray) -> Slots:
        """The slots at `positions` [count] int64."""
        raise NotImplementedError


class PlainOrder(Stream):
    """Each member of the slots runs through the rows, in each epoch by another permutation."""

    unit = 1

    def __init__(self, shards: Rows | Shards, seed: int, members: int = 1, *, window: int = WINDOW) -> None:
        self._rows = Rows.of(shards)
        counts = np.diff(np.asarray(self._rows.shard_start).astype(np.int64))
        self._windows = Windows(counts, counter_rng.key(seed, "order"), window)
        self.epoch_slots, self.members = self._windows.total, members
        if not self.epoch_slots:
            raise UserError("data.train holds no samples: pack a set that is not empty")

    def at(self, positions: np.ndarray) -> Slots:
        ids = np.empty((len(positions), self.members), np.int64)
        for epoch, rows, places in by_epoch(positions, self.epoch_slots):
            for member in range(self.members):
                ids[rows, member] = self._rows.ids(self._windows.locate(epoch, places, member))
        return Slots.of(ids, positions, [self._rows] * self.members)


class GroupOrder(Stream):
    """P x K batches: K = `group` consecutive slots show one identity, the P groups come from a whole window.

    In each epoch an identity's n images are permuted anew and cut into ceil(n / K) groups. The last group is
    filled up with the first images, marked `repeat`: apart from those an epoch visits each image once. Images
    of people whom the set does not know are in no group.
    """

    members = 1

    def __init__(self, shards: Rows | Shards, seed: int, group: int, *, window: int = WINDOW) -> None:
        if group < 1:
            raise UserError(f"data.group={group} is not positive: use data.group=4")
        self.unit = self._group = group
        self._rows = Rows.of(shards)
        self._start = self._rows.identity_start
        num = len(self._start) - 1
        self._groups = np.zeros(num + 1, np.int64)  # groups before each identity
        for low in range(0, num, 1 << 18):  # in parts, since a table of millions of identities is not copied
            high = min(num, low + (1 << 18))
            sizes = np.diff(np.asarray(self._start[low : high + 1]).astype(np.int64))
            np.cumsum((sizes + group - 1) // group, out=self._groups[low + 1 : high + 1])
            self._groups[low + 1 : high + 1] += self._groups[low]
        # A group belongs to the shard in which its identity begins.
        owner = np.searchsorted(self._start, np.asarray(self._rows.shard_start))
        counts = np.diff(self._groups[np.minimum(owner, num)])
        stream = counter_rng.key(seed, "groups")
        self._windows = Windows(counts, stream, max(1, window // group))
        self._images = counter_rng.derive(stream, np.int64(-1))
        self.epoch_slots = self._windows.total * group
        if not self.epoch_slots:
            raise UserError("data.train holds no identities: pack identity folders, or use data.order=plain")

    def at(self, positions: np.ndarray) -> Slots:
        ids, repeat = np.empty((len(positions), 1), np.int64), np.empty(len(positions), bool)
        for epoch, rows, places in by_epoch(positions, self.epoch_slots):
            ids[rows, 0], repeat[rows] = self._pick(epoch, places)
        return replace(Slots.of(ids, positions, [self._rows]), repeat=repeat)

    def _pick(self, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number, inverse = np.unique(places // self._group, return_inverse=True)
        groups = self._windows.locate(epoch, number)
        identity = np.searchsorted(self._groups, groups, "right") - 1
        low = self._start[identity].astype(np.int64)
        size = self._start[identity + 1].astype(np.int64) - low
        nth = (groups - self._groups[identity])[inverse] * self._group + places % self._group
        identity, low, size = identity[inverse], low[inverse], size[inverse]
        stream = counter_rng.derive(counter_rng.derive(self._images, np.int64(epoch)), identity)
        return self._rows.ids(low + counter_rng.permute(stream, nth % size, size)), nth >= size


class UnpairedOrder(Stream):
    """Two kinds of rows side by side (A/B): member 0 runs through A, member 1 through B.

    Each side is a permutation of its own in its own epochs, so which images share a slot changes from epoch
    to epoch. Both may be parts of one set. An epoch of this order is one of the longer side, unless
    `epoch_slots` states another.
    """

    members = 2
    pairs = True
    unit = 1

    def __init__(
        self, a: Rows | Shards, b: Rows | Shards, seed: int, *, epoch_slots: int = 0, window: int = WINDOW
    ) -> None:
        self._rows = [Rows.of(a), Rows.of(b, number=1)]
        seeds = (seed, int(counter_rng.key(seed, "unpaired")))
        self._sides = [
            PlainOrder(rows, side, window=window) for rows, side in zip(self._rows, seeds, strict=True)
        ]
        self.epoch_slots = epoch_slots or max(side.epoch_slots for side in self._sides)

    def at(self, positions: np.ndarray) -> Slots:
        ids = np.concatenate([side.at(positions).ids for side in self._sides], axis=1)
        return Slots.of(ids, positions, self._rows)
