"""Random access to members of tar shards: one `pread` a sample by the offset table, and hints in advance.

It is not a tar reader: the index says where an image's bytes are. It is safe to call from several threads.
`sampling/order.py` decides what is read, `host.py` and `dali.py` decode it.
"""

import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from data_shards.errors import UserError

_GAP = 64 * 1024  # bytes between two ranges, at most, for which one hint covers both


class _Handle:
    """A file descriptor that is closed when the last thread that reads from it drops it."""

    def __init__(self, path: os.PathLike) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __del__(self) -> None:
        fd = getattr(self, "fd", -1)
        if fd >= 0:
            os.close(fd)


class Reader:
    """Reads images of a packed set (`shard_set.ShardSet`) by sample id."""

    def __init__(self, shards: Any, *, max_open: int = 128) -> None:
        self._set = shards
        self._max_open = max_open  # a set may have more shards than a process may have files
        self._open: OrderedDict[int, _Handle] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, ids: np.ndarray, piece: str = "") -> list[bytes]:
        """The bytes of each image, or of that piece of each sample (none where it has none): `ids` [n].

        Raises UserError naming shard and member.
        """
        shard, offset, size = self._ranges(ids, piece)
        out: list[bytes] = [b""] * len(ids)
        current, handle = -1, None
        order = np.lexsort((offset, shard))  # in the order in which they are on the disk
        rows = zip(
            order.tolist(), shard[order].tolist(), offset[order].tolist(), size[order].tolist(), strict=True
        )
        for at, number, start, length in rows:
            if not length:
                continue
            try:
                if handle is None or number != current:
                    current, handle = number, self._handle(number)
                out[at] = os.pread(handle.fd, length, start)
            except OSError as error:
                raise UserError(
                    f"cannot read {self._set.shards[number]} ({error.strerror}): "
                    f"run `rostro check {self._set.folder}`"
                ) from error
            if len(out[at]) != length:
                name = name_of(self._set, int(ids[at]))
                raise UserError(
                    f"{self._set.shards[number]} ends within {name}: {len(out[at])} of {length} bytes at "
                    f"offset {start}; copy the shard again or run `rostro pack`"
                )
        return out

    def hint(self, ids: np.ndarray, piece: str = "") -> None:
        """Ask the kernel to load these images, or a piece of each, in the background.

        One hint covers neighbours.
        """
        shard, offset, size = self._ranges(ids, piece)
        shard, offset, size = shard[size > 0], offset[size > 0], size[size > 0]
        order = np.lexsort((offset, shard))
        shard, offset, end = shard[order], offset[order], (offset + size)[order]
        if not len(shard):
            return
        new = np.ones(len(shard), bool)
        new[1:] = (shard[1:] != shard[:-1]) | (offset[1:] > end[:-1] + _GAP)
        first = np.flatnonzero(new)
        stop = np.maximum.reduceat(end, first)
        for number, low, high in zip(
            shard[first].tolist(), offset[first].tolist(), stop.tolist(), strict=True
        ):
            try:
                os.posix_fadvise(self._handle(number).fd, low, high - low, os.POSIX_FADV_WILLNEED)
            except OSError:  # only a hint: `read` will say what is wrong with the file
                return

    def close(self) -> None:
        """Close all files; the reader may be used again."""
        with self._lock:
            self._open.clear()

    def _ranges(self, ids: np.ndarray, piece: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = (self._set.shard, self._set.offset, self._set.size)
        if piece:
            columns = (self._set.shard, *(self._set.pieces[piece][part] for part in ("offset", "size")))
        shard, offset, size = (np.asarray(column[ids]).astype(np.int64) for column in columns)
        return shard, offset, size

    def _handle(self, number: int) -> _Handle:
        with self._lock:
            handle = self._open.get(number)
            if handle is None:
                handle = self._open[number] = _Handle(self._set.shards[number])
                if len(self._open) > self._max_open:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(number)
            return handle


def name_of(shards: Any, sample_id: int) -> str:
    """`shard.tar:member (sample id)` for messages, even where the shard is damaged."""
    try:
        where = shards.key(sample_id)
    except (OSError, ValueError, EOFError):
        shard = shards.shards[int(shards.shard[sample_id])]
        where = f"{os.path.basename(shard)} at offset {int(shards.offset[sample_id])}"
    return f"{where} (sample {sample_id})"
