"""Orders in which rows come in proportion to a weight: by a label that holds it, or balanced over classes.

Nothing is drawn independently. The weights of all rows are laid end to end and cut into E equal cells, one
for each tick of an epoch. A tick stands for the row at one point of its cell, and the ticks are permuted in
windows of shards as the plain order permutes rows. E is so small that the heaviest row fills at most one
cell: a row touches two cells at most, and is within 2 of its expected count at any prefix of an epoch. Where
all weights are equal, cells are rows and the order is the plain one. From epoch to epoch the point in a cell
moves by the golden ratio, so that rows lighter than a cell take turns evenly.

Sums are exact integers and nothing else depends on how it is computed: every machine finds the same rows, in
sets of fewer than 2^31. Building an order reads the label of the whole set three times at most.
"""

from collections.abc import Callable

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.sampling import row_file
from data_shards.sampling.block_sums import BlockSums
from data_shards.sampling.order import WINDOW, Slots, Stream, Windows, by_epoch
from data_shards.sampling.rows import Rows, Shards

MOST_CLASSES = 1 << 26  # a label beyond it is not a class
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_EXCESS = np.uint64(11)  # bits of a uint64 that a float64 cannot hold

Masses = Callable[[np.ndarray], np.ndarray]  # block numbers [k] -> int64 [k, BLOCK]


def _unit_bits(rows: Rows) -> int:
    """Return b: the heaviest row has the mass 2^b, so that the masses of all rows sum to at most 2^62."""
    return 62 - rows.size.bit_length()


def cell_starts(ticks: np.ndarray, number: int, total: int) -> np.ndarray:
    """Return floor(tick * total / number) of `ticks` [n] int64: where the equal cells of `total` begin.

    Exact in 64 bits for number < 2^31 and total <= 2^62.
    """
    cell, rest = divmod(total, number)
    return ticks * cell + ticks * rest // number


class _TickOrder(Stream):
    """Ticks of equal mass, permuted in windows of shards. Memory: 8 bytes for every 64 rows of the set."""

    unit = 1

    def __init__(self, rows: Rows, seed: int, masses: Masses, members: int, window: int) -> None:
        """masses: of every row, 0 for those that are not selected; the largest is 2^_unit_bits(rows)."""
        self._rows, self.members = rows, members
        self._sums = BlockSums(rows.size, masses)
        total = self._sums.total
        self.epoch_slots = total >> _unit_bits(rows)
        self._cell = total // self.epoch_slots
        starts = self._sums.before(np.asarray(rows.shards.shard_start)).tolist()
        ticks = np.array([mass * self.epoch_slots // total for mass in starts], np.int64)
        self._windows = Windows(np.diff(ticks), counter_rng.key(seed, "order"), window)
        self._epochs = counter_rng.key(seed, "ticks")
        self._points = counter_rng.key(seed, "points")

    def at(self, positions: np.ndarray) -> Slots:
        epochs = positions // self.epoch_slots
        ids = np.empty((len(positions), self.members), np.int64)
        for member in range(self.members):
            ids[:, member] = self._sums.find(self._point(epochs, self._ticks(positions, member)))
        return Slots.of(ids, positions, [self._rows] * self.members)

    def _ticks(self, positions: np.ndarray, member: int) -> np.ndarray:
        """Return the tick at each position [n] of the stream: every epoch is a permutation of its ticks."""
        if self._windows.number == 1 and self.epoch_slots < len(self._rows):
            # short epochs: a table of shards for each would cost more than the slots
            epochs, places = np.divmod(positions, self.epoch_slots)
            streams = counter_rng.derive(counter_rng.derive(self._epochs, epochs), np.int64(member))
            return counter_rng.permute(streams, places, self.epoch_slots)
        ticks = np.empty(len(positions), np.int64)
        for epoch, which, places in by_epoch(positions, self.epoch_slots):
            ticks[which] = self._windows.locate(epoch, places, member)
        return ticks

    def _point(self, epochs: np.ndarray, ticks: np.ndarray) -> np.ndarray:
        """Return the point of each tick's cell in its epoch, [n] int64 in the running total of all masses."""
        turn = counter_rng.derive(self._points, ticks) + epochs.astype(np.uint64) * _GOLDEN
        inside = ((turn >> _EXCESS) * 2.0**-53 * self._cell).astype(np.int64)
        begin = cell_starts(ticks, self.epoch_slots, self._sums.total)
        return begin + np.minimum(inside, self._cell - 1)


class WeightedOrder(_TickOrder):
    """Rows come in proportion to the label `field`; those of weight 0 never come.

    An epoch has as many slots as the weights sum to in units of the largest: a row of the largest weight
    comes once in an epoch on average, and never more than twice. Weights keep 33 bits below the largest at
    260 million rows, and more in smaller sets; a weight above 0 never becomes 0.
    """

    def __init__(
        self, shards: Rows | Shards, seed: int, field: str, members: int = 1, *, window: int = WINDOW
    ) -> None:
        """field: a label of numbers from 0, or `@FILE`, a list of rows with weights.

        UserError for a negative or infinite weight, or if all are 0.
        """
        rows, key = Rows.of(shards), f"data.weights={row_file.shown(field)}"
        rows.column(field, key=key)
        largest, unit = self._largest(rows, field, key), 2.0 ** _unit_bits(rows)

        def masses(blocks: np.ndarray) -> np.ndarray:
            labels, selected = rows.block(field, blocks)
            weights = np.where(selected, labels, 0).astype(np.float64)
            return np.ceil(weights / largest * unit).astype(np.int64)

        super().__init__(rows, seed, masses, members, window)

    @staticmethod
    def _largest(rows: Rows, field: str, key: str) -> float:
        largest = 0.0
        for first, labels, selected in rows.chunks(field):
            values = np.where(selected, labels, 0).astype(np.float64)
            good = np.isfinite(values) & (values >= 0)
            if not good.all():
                at = int(np.argmin(good))
                raise UserError(
                    f"{key}: row {first + at} weighs {values[at]:g}: use a label of numbers from 0, or "
                    f'choose other rows, for example {rows.key}="{field}>=0"'
                )
            largest = max(largest, float(values.max(initial=0)))
        if not largest:
            raise UserError(f"{key}: all {len(rows):,} rows weigh 0: use another label, or data.order=plain")
        return largest


class BalancedOrder(_TickOrder):
    """The classes of the label `field` come equally often, and the rows of a class equally often within it.

    An epoch shows about as many rows of each class as the smallest class has. Memory: 8 bytes a class more.
    """

    def __init__(
        self, shards: Rows | Shards, seed: int, field: str, members: int = 1, *, window: int = WINDOW
    ) -> None:
        """field: a label of whole numbers from 0. UserError for another, and for rows without a class."""
        rows, key = Rows.of(shards), f"data.balance={field}"
        counts = self._counts(rows, field, key)
        smallest = int(counts[counts > 0].min(initial=rows.size))
        table = -(-(smallest << _unit_bits(rows)) // np.maximum(counts, 1))
        if not len(table):
            raise UserError(f"{key}: there are no samples: pack a set that is not empty")

        def masses(blocks: np.ndarray) -> np.ndarray:
            labels, selected = rows.block(field, blocks)
            return np.where(selected, table[np.where(selected, labels, 0).astype(np.int64)], 0)

        super().__init__(rows, seed, masses, members, window)

    @staticmethod
    def _counts(rows: Rows, field: str, key: str) -> np.ndarray:
        """Return the selected rows of each class, [classes] int64."""
        if rows.column(field, key=key).dtype.kind == "f":
            raise UserError(f"{key} is not a class, its labels are not whole numbers: use another label")
        counts = np.zeros(0, np.int64)
        for first, labels, selected in rows.chunks(field):
            values = np.where(selected, labels, 0)
            if (values < 0).any():
                at = int(np.argmax(values < 0))
                raise UserError(
                    f"{key}: row {first + at} has no class ({values[at]}): choose the rows that have one, "
                    f'{rows.key}="{field}>=0"'
                )
            if values.max(initial=0) >= MOST_CLASSES:
                raise UserError(f"{key}: {values.max():,} is too large for a class: use another label")
            found = np.bincount(labels[selected].astype(np.int64), minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        return counts
