"""TarWriter: one shard, written once, as plain POSIX ustar. It is not a general tar library.

A Python tar library spends about 40 us a member; here a header is a template in which only name, size and
checksum change, and 64 members are hashed and written by one writev. The writer knows every offset, so the
DALI index (v1.2) costs nothing. `inspect/check.py` reads shards back.
"""

import hashlib
import os
from pathlib import Path

from data_shards.shard_format.ustar import BLOCK, END, NAME_LENGTH, SIZE_LIMIT, header

BATCH = 64  # members of one writev: 3 pieces each, far below IOV_MAX = 1024
_PADDING = [bytes(-size % BLOCK) for size in range(BLOCK)]


class TarWriter:
    """Writes `path` and, with index_path, its DALI index. Both must not exist, else OSError.

    They are whole only after `close`: the caller gives temporary names and renames the files. `digest` is the
    sha256 of the tar, known after `close` ("" with sha256=False).
    """

    def __init__(self, path: Path, *, index_path: Path | None = None, sha256: bool = True) -> None:
        self.offset = 0  # where the next header goes
        self.digest = ""
        self._index_path = index_path
        self._hash = hashlib.sha256() if sha256 else None
        self._pieces: list[bytes] = []
        self._flushed = 0  # offset of the first piece
        self._lines: list[str] = []  # of the DALI index, each with a leading blank
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def add(self, key: str, members: dict[str, bytes]) -> int:
        """Append the sample `key` with {extension: bytes}; returns the offset of the first member's data.

        Raises ValueError for a name that is over 100 bytes, not ASCII, or has a dot before the extension.
        """
        if not key or "." in key or "\0" in key:
            raise ValueError(f"key={key!r}: must be a name without a dot")
        offset, pieces, line = self.offset, self._pieces, ""
        first = offset + BLOCK
        for extension, data in members.items():
            text = f"{key}.{extension}"
            name, size = text.encode("ascii"), len(data)
            if len(name) > NAME_LENGTH or size >= SIZE_LIMIT:
                raise ValueError(f"member {text} of {size} bytes does not fit a ustar header")
            pieces += (header(name, size), data, _PADDING[size & 511])
            line += f" {extension} {offset + BLOCK} {size} {text}"
            offset += BLOCK + size + (-size & 511)
        self._lines.append(line)
        self.offset = offset
        if len(pieces) >= 3 * BATCH:
            self._flush()
        return first

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if self._hash:
            for piece in pieces:
                self._hash.update(piece)
        written = os.writev(self._file, pieces)
        rest = memoryview(b"")
        if written < self.offset - self._flushed:  # a signal came, or the disk is full and `write` raises
            rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._flushed = self.offset

    def close(self, *, sync: bool = True) -> None:
        """End the archive and write the index. sync: both are on disk when this returns."""
        self._pieces.append(END)
        self.offset += len(END)
        self._flush()
        if sync:
            os.fsync(self._file)
        self.abandon()
        if self._hash:
            self.digest = self._hash.hexdigest()
        if self._index_path is not None:
            with open(self._index_path, "x", encoding="ascii") as file:
                file.write(f"v1.2 {len(self._lines)}\n")
                file.writelines(f"{line[1:]}\n" for line in self._lines)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())

    def abandon(self) -> None:
        """Close the file without ending the archive."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
