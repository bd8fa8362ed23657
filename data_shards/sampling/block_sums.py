"""Prefix sums over the rows of a set, kept for every 64th row: how an order finds a row by a running total.

A whole table of prefix sums would take 2 GB at 260 million rows in every rank; this one takes 33 MB, and the
rest is computed from the rows of one block when a row is looked up.
"""

from collections.abc import Callable

import numpy as np

BLOCK = 64  # rows
_CHUNK = 1 << 14  # blocks that are summed, or looked up, at a time: bounds temporary memory


def rows_of(blocks: np.ndarray) -> np.ndarray:
    """Return the row numbers of `blocks` [k] as int64 [k, BLOCK]; the last block may run past the set."""
    return blocks[:, None] * BLOCK + np.arange(BLOCK)


class BlockSums:
    """Running totals of a column of non-negative integers, one amount for each row.

    Memory: 8 bytes for every 64 rows. A look-up reads the 64 amounts of one block.
    """

    def __init__(self, length: int, amounts: Callable[[np.ndarray], np.ndarray]) -> None:
        """Sum `length` rows. amounts: block numbers [k] -> int64 [k, BLOCK], 0 past the last row."""
        self._amounts = amounts
        blocks = -(-length // BLOCK)
        self._before = np.zeros(blocks + 1, np.int64)
        for low in range(0, blocks, _CHUNK):
            high = min(blocks, low + _CHUNK)
            self._before[low + 1 : high + 1] = amounts(np.arange(low, high)).sum(axis=1, dtype=np.int64)
        np.cumsum(self._before, out=self._before)
        self.total = int(self._before[-1])

    def find(self, points: np.ndarray) -> np.ndarray:
        """Return the rows [n] int64 in whose amounts `points` [n] fall, 0 <= point < total.

        Row r holds the points from the sum of all rows before it up to that sum plus its own amount.
        """
        blocks = np.searchsorted(self._before, points, "right") - 1
        rows = blocks * BLOCK
        for low in range(0, len(points), _CHUNK):
            part = slice(low, low + _CHUNK)
            ends = np.cumsum(self._amounts(blocks[part]), axis=1, dtype=np.int64)
            rows[part] += (ends <= (points[part] - self._before[blocks[part]])[:, None]).sum(axis=1)
        return rows

    def before(self, rows: np.ndarray) -> np.ndarray:
        """Return the sums [n] int64 of all rows before each of `rows` [n]; the set's length is allowed."""
        rows = np.asarray(rows).astype(np.int64)
        blocks = rows // BLOCK
        sums = self._before[blocks]
        for low in range(0, len(rows), _CHUNK):
            part = slice(low, low + _CHUNK)
            inside = np.arange(BLOCK) < (rows[part] - blocks[part] * BLOCK)[:, None]
            last = np.minimum(blocks[part], len(self._before) - 2)
            sums[part] += (self._amounts(last) * inside).sum(axis=1, dtype=np.int64)
        return sums
