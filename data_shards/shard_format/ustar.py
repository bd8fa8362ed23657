"""The 512-byte header of a tar member, as plain POSIX ustar: written and read back.

All fields but name, size and checksum are constant, so equal members give equal bytes. Whole archives are
written by `pack/tar_writer.py` and checked by `inspect/check.py`.
"""

from zlib import adler32

BLOCK = 512
# Bytes of the name field: longer names would need the prefix field, which not all readers treat alike.
NAME_LENGTH = 100
SIZE_LIMIT = 8**11  # eleven octal digits
END = bytes(2 * BLOCK)


def _template() -> bytes:
    """The header of a read-only file of root at time 0; name, size and checksum are empty (POSIX.1-1988)."""
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
    """The 512 bytes before a member's data. name: ASCII, at most NAME_LENGTH; size: below SIZE_LIMIT."""
    digits = b"%011o" % size
    # The low half of an Adler checksum is 1 + the sum of the bytes, modulo 65521: fast, and the sum is small.
    total = adler32(digits, adler32(name)) & 0xFFFF
    return b"".join((name, _GAPS[len(name)], digits, _MIDDLE, b"%06o" % (_SUM - 1 + total), _TAIL))


def member_length(size: int) -> int:
    """The bytes that a member with `size` bytes of data takes in an archive, its header and padding too."""
    return BLOCK + size + -size % BLOCK


def header_name(head: bytes) -> str:
    """The member name in a header that `header` wrote. Raises ValueError for any other bytes."""
    name = head[:NAME_LENGTH].rstrip(b"\0")
    try:
        size = int(head[124:135], 8)
    except ValueError:
        raise ValueError("no tar header") from None
    if head != header(name, size):
        raise ValueError("damaged tar header")
    return name.decode("ascii")
