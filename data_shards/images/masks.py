"""Masks: PNG files of 8-bit grey whose pixels are numbers, not colours; 255 stands for an unknown pixel.

Nothing is converted: a colour or a palette would become other numbers.
"""

from typing import NamedTuple

import numpy as np

from data_shards.images.pixels import LARGEST, Rejected

UNKNOWN = 255
_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


class StoredMask(NamedTuple):
    """A mask as it is stored in a shard."""

    png: bytes
    width: int  # pixels
    height: int


def store_mask(mask: bytes | np.ndarray, *, classes: int = 0) -> StoredMask:
    """Return the PNG to store for a mask, uint8 [h, w] or a file that is stored as it is.

    classes: pixels are numbers below it, or UNKNOWN (0 = any number). Raises Rejected.
    """
    if isinstance(mask, np.ndarray):
        if mask.dtype != np.uint8 or mask.ndim != 2 or not mask.size:
            raise Rejected(f"mask is {mask.dtype} {mask.shape}, not uint8 [h, w]")
        import cv2  # late, as in `normalize.py`

        png = cv2.imencode(".png", mask)[1].tobytes()
    else:
        png, mask = mask, read_mask(mask)
    if classes and not ((mask < classes) | (mask == UNKNOWN)).all():
        worst = int(mask[(mask >= classes) & (mask != UNKNOWN)].max())
        raise Rejected(f"mask has the number {worst}, not 0 to {classes - 1} or {UNKNOWN}")
    return StoredMask(png, mask.shape[1], mask.shape[0])


def read_mask(png: bytes) -> np.ndarray:
    """The numbers of a mask, uint8 [h, w]. Raises Rejected for any file but a whole PNG of 8-bit grey."""
    if png[:16] != _HEAD or png[24:26] != b"\x08\0":
        raise Rejected("mask is not a PNG of 8-bit grey")
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    if width * height > LARGEST:
        raise Rejected(f"mask has {width} x {height} pixels, more than {LARGEST:,}")
    import cv2

    mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.shape != (height, width) or mask.dtype != np.uint8 or b"IEND" not in png[-12:]:
        raise Rejected("mask does not decode")
    return mask
