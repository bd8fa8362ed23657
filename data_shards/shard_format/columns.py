"""Columns of a set's index: npy files read with bounds, and the proof that they are those that were packed.

The files of small sets are hashed whole. Those of large sets are hashed by blocks, each when a row in it is
first needed: `index/blocks.sha256` contains the hashes, and the manifest the hash of that file. A header is
compared with what the packer writes; nothing in it is evaluated.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.files import FileError, open_regular, read_bytes

BLOCKS = "index/blocks.sha256"  # the sha256 of each block of every column, in the order of their names
BLOCK_BYTES = 1 << 18
DIGEST = 32  # bytes of a sha256
REMEDY = "copy it again or pack the set again"

_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 1 << 12
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': False, "
    rb"'shape': \(([0-9]{1,15}),([0-9, ]{0,60})\), \} *\n"
)


def load_column(path: Path, dtype: str, rows: int, shape: tuple[int, ...] = ()) -> np.memmap:
    """Map the column in `path`: [rows, *shape] of `dtype`, read-only. Raises FileError for any other file."""
    kind = np.dtype(dtype)
    with open_regular(path, remedy=REMEDY) as file:
        head = file.read(10)
        length = int.from_bytes(head[8:], "little")
        match = _HEADER.fullmatch(file.read(min(length, _LONGEST_HEADER)))
        if head[:8] != _MAGIC or match is None:
            raise FileError(f"{path}: its header is not that of a column: {REMEDY}")
        if match[1].decode() != kind.str:
            raise FileError(f"{path}: holds {match[1].decode()}, the manifest says {kind.str}: {REMEDY}")
        if int(match[2]) != rows:
            raise FileError(f"{path}: {int(match[2])} rows, the manifest says {rows}: {REMEDY}")
        if match[3].decode() != ", ".join(("", *map(str, shape))).removeprefix(","):
            raise FileError(f"{path}: its rows do not have the shape {shape}, as the manifest says: {REMEDY}")
        start = len(head) + length
        if os.fstat(file.fileno()).st_size != start + rows * math.prod(shape) * kind.itemsize:
            raise FileError(f"{path}: is not as long as its {rows} rows: {REMEDY}")
        return np.memmap(file, kind, "r", offset=start, shape=(rows, *shape))


def verify_file(path: Path, entry: Mapping[str, Any]) -> None:
    """Raise FileError unless the file's bytes are those that its entry in the manifest states."""
    with open_regular(path, remedy=REMEDY) as file:
        same = os.fstat(file.fileno()).st_size == entry["bytes"]
        if not same or hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise _changed(path)


def block_digests(path: Path, block: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The sha256 of each block of a file, 32 bytes each."""
    with open(path, "rb") as file:
        while data := file.read(block):
            yield hashlib.sha256(data).digest()


class Blocks:
    """Verify the blocks of columns when their rows are first needed."""

    def __init__(self, folder: Path, columns: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> None:
        """columns: {file below folder: the memory-mapped column}; entry: the manifest's entry for BLOCKS.

        Raises FileError if that file was changed or does not fit the columns.
        """
        path = folder / BLOCKS
        verify_file(path, entry)
        data = read_bytes(path, limit=int(entry["bytes"]), remedy=REMEDY)
        self._columns, place = {}, 0
        for name in sorted(columns):
            column = columns[name]
            start = getattr(column, "offset", 0)
            count = -(-(start + column.nbytes) // BLOCK_BYTES)
            hashes = data[place : place + count * DIGEST]
            width = column.itemsize * math.prod(column.shape[1:])
            self._columns[name] = (folder / name, start, width, hashes, np.zeros(count, bool))
            place += count * DIGEST
        if place != len(data):
            raise FileError(f"{path}: is not as long as the columns need: {REMEDY}")

    def verify(self, name: str, first: np.ndarray, stop: np.ndarray) -> None:
        """Raise FileError if a block of the column `name` with some row of [first, stop) was changed."""
        path, start, width, hashes, done = self._columns[name]
        first, stop = first[stop > first], stop[stop > first]
        blocks = _covering(start + first * width, start + stop * width)
        pending = blocks[~done[blocks]]
        if pending.size:
            _verify_blocks(path, np.unique(pending).tolist(), hashes)
            done[pending] = True


def _covering(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The numbers of all blocks with bytes of [begin, end) of some row; repeats are left in."""
    first, last = begin // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
    most = int((last - first).max(initial=0))
    if most <= 0:  # the rule: a header is a multiple of 64 bytes, and most rows are a power of two long
        return first
    return np.minimum(first[:, None] + np.arange(most + 1), last[:, None]).ravel()


def _verify_blocks(path: Path, blocks: Sequence[int], hashes: bytes) -> None:
    with open_regular(path, remedy=REMEDY) as file:
        for number in blocks:
            data = os.pread(file.fileno(), BLOCK_BYTES, number * BLOCK_BYTES)
            if hashlib.sha256(data).digest() != hashes[number * DIGEST : (number + 1) * DIGEST]:
                raise _changed(path)


class RaggedColumn:
    """A label of which a sample has any number: sample i owns rows[start[i] : start[i + 1]]. Read-only."""

    def __init__(self, start: np.ndarray, rows: np.ndarray) -> None:
        """start: [n + 1] whole numbers; rows: [m, *shape] of all samples, one after another."""
        self.start, self.rows = start, rows

    def __len__(self) -> int:
        return len(self.start) - 1

    def spans(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first [k], stop [k]) int64: the rows of these samples. They must have been verified."""
        return self.start[ids].astype(np.int64), self.start[ids + 1].astype(np.int64)

    def rows_of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows of these samples one after another [sum of counts, *shape], counts [k] int64)."""
        first, stop = self.spans(np.asarray(ids, np.int64))
        counts = stop - first
        before = np.cumsum(counts) - counts
        return self.rows[np.repeat(first - before, counts) + np.arange(counts.sum())], counts


def check_starts(path: Path, starts: np.ndarray, rows: int) -> None:
    """Raise FileError unless `starts` rises strictly from 0 to the number of rows: no part is empty."""
    if int(starts[0]) != 0 or int(starts[-1]) != rows or not (starts[1:] > starts[:-1]).all():
        raise FileError(f"{path}: does not rise from 0 to the {rows} rows of the set: {REMEDY}")


def _changed(path: Path) -> FileError:
    return FileError(f"{path}: its bytes are not those that the manifest says: {REMEDY}")
