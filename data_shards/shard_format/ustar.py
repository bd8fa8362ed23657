"""TarWriter: one shard, written once, as plain POSIX ustar. No general tar library; `check.py` reads it back.

A Python tar library spends about 40 us a member; here a header is a template in which only name, size and
checksum change, and 64 members go out in one writev that is hashed on the way. The writer knows every offset,
so the DALI index (v1.2) comes for free. All other header fields are constant: same members, same bytes.
"""

import hashlib
import os
from pathlib import Path
from zlib import adler32

BLOCK = 512
BATCH = 64  # members that go out in one writev: 3 pieces each, far below IOV_MAX = 1024
NAME_LENGTH = (
    100  # the header's name field; longer ones would need the prefix field, which readers treat unevenly
)
SIZE_LIMIT = 8**11  # eleven octal digits
END = bytes(2 * BLOCK)

_PADDING = [bytes(-size % BLOCK) for size in range(BLOCK)]


def _template() -> bytes:
    """Header of a read-only file of root at time 0; name, size and checksum are empty (POSIX.1-1988)."""
    head = bytearray(BLOCK)
    head[100:108] = b"0000444\0"  # mode
    head[108:116] = head[116:124] = b"0000000\0"  # uid, gid
    head[136:148] = b"00000000000\0"  # mtime
    head[148:156] = b" " * 8  # the checksum counts its own field as blanks
    head[156:157] = b"0"  # regular file
    head[257:265] = b"ustar\x0000"
    return bytes(head)


_HEAD = _template()
_SUM = sum(_HEAD)
_GAPS = [_HEAD[length:124] for length in range(NAME_LENGTH + 1)]
_MIDDLE, _TAIL = b"\0" + _HEAD[136:148], b"\0 " + _HEAD[156:]


def header(name: bytes, size: int) -> bytes:
    """The 512 bytes before a member's data. name: at most 100 ASCII bytes."""
    digits = b"%011o" % size
    # The low half of an Adler checksum is 1 + the sum of the bytes, modulo 65521: C speed, and the sum is small.
    total = adler32(digits, adler32(name)) & 0xFFFF
    return b"".join((name, _GAPS[len(name)], digits, _MIDDLE, b"%06o" % (_SUM - 1 + total), _TAIL))


def header_name(head: bytes) -> str:
    """Member name in a header that `header` wrote. Raises ValueError for anything else."""
    name = head[:NAME_LENGTH].rstrip(b"\0")
    try:
        size = int(head[124:135], 8)
    except ValueError:
        raise ValueError("no tar header") from None
    if head != header(name, size):
        raise ValueError("damaged tar header")
    return name.decode("ascii")


class TarWriter:
    """Writes `path` and, with index_path, its DALI index.

    Both are whole only after `close`: the caller gives temporary names and renames. `digest` is the sha256 of
    the tar, known after `close` unless sha256=False.
    """

    def __init__(self, path: Path, *, index_path: Path | None = None, sha256: bool = True) -> None:
        self.offset = 0  # where the next header goes
        self.digest = ""
        self._index_path = index_path
        self._hash = hashlib.sha256() if sha256 else None
        self._pieces: list[bytes] = []
        self._flushed = 0  # where the pieces begin
        self._lines: list[str] = []  # of the DALI index, a blank before each
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def add(self, key: str, members: dict[str, bytes]) -> int:
        """Appends the sample `key` with {extension: bytes}; returns the offset of the first member's data.

        Raises ValueError for a name over 100 bytes, not ASCII, or with a dot before the extension.
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
        if written < self.offset - self._flushed:  # a signal came, or the disk is full: the next write tells
            rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._flushed = self.offset

    def close(self, *, sync: bool = True) -> None:
        """Ends the archive. sync: on disk when this returns."""
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
        """Gives the file back without ending the archive."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
