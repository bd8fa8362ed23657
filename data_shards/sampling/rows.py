"""Rows: a packed set, or the part of it that an expression over its labels selects, as an order sees it.

An order numbers the samples among which it shuffles 0, 1, 2, ...: their places. `Rows` says where shards and
identities begin in places, and turns places into row numbers of the set. Two of them may come from one set.
Expressions: `selection.py`. Orders: `order.py`.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from data_shards.errors import UserError
from data_shards.sampling import row_file
from data_shards.sampling.block_sums import BLOCK, BlockSums, rows_of
from data_shards.sampling.selection import WHOLE, Selection

RARE = 0.1  # a part of the set below this share is rare
_CHUNK = BLOCK << 14  # rows that are compared at a time


class Shards(Protocol):
    """What an order needs to know of a set; `ShardSet` has it, memory-mapped."""

    @property
    def identity_start(self) -> np.ndarray: ...  # [I + 1]: identity i owns the rows [start[i], start[i + 1])

    @property
    def shard_start(self) -> np.ndarray: ...  # [S + 1]: shard s owns the rows [start[s], start[s + 1])


class Rows:
    """All rows of a set, or those that an expression selects, in the set's order.

    Memory: none for a whole set; for a part, a bit a row and 8 bytes for every 64 rows (66 MB at 260 million
    rows), and the starts of its identities where P x K needs them.
    """

    def __init__(self, shards: Any, where: str = WHOLE, *, number: int = 0, key: str = "data.rows") -> None:
        """Select rows of an opened set.

        where: an expression as `selection.py` says, which reads the set's `labels`, or a list of rows as
        `row_file.py` says. number: which of the run's sets this is (what `Slots.sets` holds). key: the config
        key that errors name. Raises UserError for a label that the set lacks, for an expression that no row
        satisfies, and for a list of another set.
        """
        self.shards, self.number, self.key = shards, number, key
        self.size = int(shards.shard_start[-1])  # rows of the whole set
        self._bits: np.ndarray | None = None
        self._listed: dict[str, np.ndarray] = {}  # weights of every row, by the file that lists them
        if row_file.is_file(where):
            self.where = row_file.shown(where)
            self._bits = self._choose(row_file.read_list(where, shards, key=key)[0])
            self._sums = BlockSums(self.size, self._chosen)
            return
        selection = Selection(where, key=key)
        self.where = selection.text
        if selection.fields:
            self._bits = self._compare(selection)
            self._sums = BlockSums(self.size, self._chosen)
            if not len(self):
                raise UserError(self._empty(selection))

    @classmethod
    def of(cls, shards: Any, *, number: int = 0) -> "Rows":
        """Return `shards` itself where it is Rows already, else all rows of that set."""
        return shards if isinstance(shards, Rows) else cls(shards, number=number)

    def __len__(self) -> int:
        return self.size if self._bits is None else self._sums.total

    @cached_property
    def shard_start(self) -> np.ndarray:
        """Places at which shards begin, [S + 1]."""
        start = self.shards.shard_start
        return start if self._bits is None else self._sums.before(start)

    @cached_property
    def identity_start(self) -> np.ndarray:
        """Places at which identities begin, [I + 1]; one without selected rows owns none."""
        start = self.shards.identity_start
        return start if self._bits is None else self._sums.before(start)

    def ids(self, places: np.ndarray) -> np.ndarray:
        """Return the row numbers in the set of `places` [n] int64, 0 <= place < len(self)."""
        return places if self._bits is None else self._sums.find(places)

    def column(self, field: str, *, key: str) -> np.ndarray:
        """Return a label of every row of the set, selected or not; of a list of rows (`@FILE`) their weights.

        key: `key=value` that names the label, for the UserError where the set has no such label, or one that
        is not a number.
        """
        if row_file.is_file(field):
            return self._weights(field, key.partition("=")[0])
        labels: dict[str, np.ndarray] = getattr(self.shards, "labels", {})
        schema = getattr(self.shards, "schema", None)
        if field not in labels and (schema is None or field not in schema.fields):
            known = ", ".join(labels) or "none"
            raise UserError(f"{key}: {self._folder} has no label `{field}`: use one of {known}")
        if field not in labels or labels[field].ndim != 1 or labels[field].dtype.kind not in "biuf":
            single = ", ".join(name for name, column in labels.items() if column.ndim == 1)
            raise UserError(f"{key}: label `{field}` is not one number a row: use one of {single}")
        return labels[field]

    def block(self, field: str, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (labels, selected) of the rows of `blocks` [k], both [k, BLOCK], from the whole set.

        Past the last row labels repeat and nothing is selected.
        """
        rows = rows_of(blocks)
        inside = rows < self.size
        column = self._listed[field] if field in self._listed else self.shards.labels[field]
        labels = column[np.minimum(rows, self.size - 1)]
        return labels, inside if self._bits is None else self._chosen(blocks).astype(bool)

    def chunks(self, field: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (first row, labels [k], selected [k]) of consecutive rows, through the whole set."""
        for low in range(0, self.size, _CHUNK):
            blocks = np.arange(low // BLOCK, -(-min(self.size, low + _CHUNK) // BLOCK))
            labels, selected = self.block(field, blocks)
            yield low, labels.reshape(-1), selected.reshape(-1)

    @property
    def note(self) -> str:
        """A line for the log where reading these rows is costly, else empty."""
        touched = int(np.count_nonzero(np.diff(self.shard_start.astype(np.int64))))
        shards = len(self.shard_start) - 1
        if len(self) >= RARE * self.size or touched < max(8, 0.9 * shards):
            return ""
        return (
            f"{self.key}={self.where}: {len(self):,} of {self.size:,} rows, in {touched:,} of {shards:,} "
            "shards: nearly every shard is read for few rows; pack these rows as a set of their own if "
            "reading is slow"
        )

    @property
    def _folder(self) -> str:
        return str(getattr(self.shards, "folder", "the set"))

    def _weights(self, file: str, key: str) -> np.ndarray:
        """Return the weights of every row that a file lists, 0 for the others: 4 bytes a row."""
        if file not in self._listed:
            ids, weights = row_file.read_list(file, self.shards, key=key)
            self._listed[file] = np.zeros(self.size, np.float32)
            self._listed[file][ids] = weights
        return self._listed[file]

    def _choose(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids` as bits, uint8 [blocks, BLOCK / 8]."""
        bits = np.zeros((-(-self.size // BLOCK), BLOCK // 8), np.uint8)
        np.bitwise_or.at(bits.reshape(-1), ids // 8, np.uint8(128) >> (ids % 8).astype(np.uint8))
        return bits

    def _chosen(self, blocks: np.ndarray) -> np.ndarray:
        """Return which rows of `blocks` [k] are selected, uint8 [k, BLOCK]."""
        assert self._bits is not None
        return np.unpackbits(self._bits[blocks], axis=1)

    def _compare(self, selection: Selection) -> np.ndarray:
        """Return the selected rows as bits, uint8 [blocks, BLOCK / 8]."""
        columns = {field: self.column(field, key=f"{self.key}={self.where}") for field in selection.fields}
        bits = np.zeros((-(-self.size // BLOCK), BLOCK // 8), np.uint8)
        flat = bits.reshape(-1)
        for low in range(0, self.size, _CHUNK):
            high = min(self.size, low + _CHUNK)
            part = {field: np.asarray(column[low:high]) for field, column in columns.items()}
            packed = np.packbits(selection.matches(part, high - low))
            flat[low // 8 : low // 8 + len(packed)] = packed
        return bits

    def _empty(self, selection: Selection) -> str:
        """Say that no row is selected, and which values there are."""
        ranges = []
        for field in selection.fields:
            column = self.shards.labels[field]
            if len(column):
                ranges.append(f"{field} runs from {column.min():g} to {column.max():g}")
        found = ", ".join(ranges) or "the set is empty"
        return (
            f"{self.key}={self.where} matches none of the {self.size:,} rows of {self._folder} ({found}): "
            "use values that occur, or `set` for every row"
        )
