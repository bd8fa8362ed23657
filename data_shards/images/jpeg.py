"""What the header of a JPEG says, without decoding: size, components, coding, orientation (T.81, Exif 2.3).

Only the markers before the first scan are walked. Whether the scan itself is whole is the decoder's business.
"""

import re
import struct
from typing import NamedTuple

_SOF = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
# The next marker: data bytes of 0xFF are followed by 0.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ORIENTATION = 0x0112  # Exif tag; its value is 1 to 8


class Head(NamedTuple):
    """Facts of a JPEG file."""

    width: int  # as stored, before the orientation is applied
    height: int
    components: int  # 1 grey, 3 colour, 4 CMYK or YCCK
    common: bool  # 8 bits, Huffman, baseline or progressive: what every decoder reads
    adobe: int  # colour transform of the Adobe marker: 0 none, 1 YCbCr, 2 YCCK; -1: no such marker
    orientation: int  # 1: upright


def read_head(data: bytes) -> Head:
    """Read the header. Raises ValueError if the markers up to the first scan are not those of a JPEG."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG")
    frame, adobe, orientation = b"", -1, 1
    common = False
    position = 2
    try:
        while True:
            if data[position] != 0xFF:
                raise ValueError("damaged JPEG header")
            marker = data[position + 1]
            if marker == 0xFF:  # fill byte
                position += 1
                continue
            if marker in _WITHOUT_LENGTH:
                position += 2
                continue
            if marker in (0xDA, 0xD9):
                break
            length = data[position + 2] << 8 | data[position + 3]
            start, position = position + 4, position + 2 + length
            if marker in _SOF:
                frame = data[start:position]
                common = marker <= 0xC2 and frame[0] == 8
            elif marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
                orientation = _exif_orientation(data[start + 6 : position])
            elif marker == 0xEE and data[start : start + 5] == b"Adobe" and length >= 14:
                adobe = data[start + 11]
        height, width, components = struct.unpack_from(">HHB", frame, 1)
        if frame[6:15:3] == b"RGB" and adobe < 0:  # names of the components, by which libjpeg knows RGB too
            adobe = 0
    except (IndexError, struct.error):
        raise ValueError("truncated JPEG header") from None
    if not width or not height:
        raise ValueError(f"JPEG of {width} x {height} pixels")
    return Head(width, height, components, common, adobe, orientation)


def count_scans(data: bytes) -> int:
    """The number of scans up to the end of the image: what a phone appends, such as a video, is not read."""
    count, position = 0, 2
    while match := _AFTER_SCAN.search(data, position):
        marker, position = data[match.start() + 1], match.end()
        if marker == 0xD9:
            break
        count += marker == 0xDA
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")
    return count


def _exif_orientation(tiff: bytes) -> int:
    """The orientation in an Exif block, 1 to 8; 1 where it is absent or unreadable."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION and kind == 3:
                (value,) = struct.unpack_from(order + "H", tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
