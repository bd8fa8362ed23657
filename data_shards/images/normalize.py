"""Turn any image file into the JPEG to store: 8 bits, RGB or grey, upright, whole; or say why it is Rejected.

A JPEG that is all of that already keeps its bytes. Everything else is decoded and encoded again at quality 95
without chroma subsampling. Other formats are read in `other_formats.py`, sizes are changed in `pixels.py`.
"""

from typing import NamedTuple

import numpy as np
import simplejpeg

from data_shards.images.jpeg import Head, count_scans, read_head
from data_shards.images.pixels import LARGEST, Crop, Rejected, _cut, by_strips, centre, reason, upright

QUALITY = 95
SCANS = 500  # of a progressive JPEG; more of them are an attack on the time

# libjpeg's warnings that leave every pixel intact. The image is encoded again, so that no reader warns of it.
HARMLESS = ("Invalid SOS parameters", "Unknown Adobe color transform")


class StoredImage(NamedTuple):
    """An image as it is stored in a shard."""

    jpeg: bytes
    width: int  # pixels
    height: int
    converted: str | None  # what had to be done (None = these are the file's own bytes)


def normalise(
    data: bytes, *, size: int | None = None, crop: Crop | float | None = None, verify: bool = True
) -> StoredImage:
    """Return the JPEG to store for an image file. Raises Rejected.

    size: cut the centre square and resize it to size x size, as `pixels.square` does (None = keep the size).
    crop: what is cut first, a box (x, y, width, height) in pixels, or the side of the centre square: in
    pixels, or up to 1 as a share of the shorter side. verify: also decode the bytes that are kept.
    """
    if not data:
        raise Rejected("empty file")
    if data[:2] != b"\xff\xd8":
        # Imported late: OpenCV and Pillow double the time that a worker needs to start.
        from data_shards.images.other_formats import read_other

        image, done = read_other(data)
    else:
        head = _jpeg_head(data)
        done = _needs(head)
        if isinstance(crop, int | float) and not centre(head.width, head.height, crop):
            crop = None
        if not done and not crop and size in (None, head.width) and (not size or size == head.height):
            warning = _verify(data) if verify else None
            if warning is None:
                return StoredImage(data, head.width, head.height, None)
            done = [warning]
        image = _decode_jpeg(data, head)
    if isinstance(crop, int | float):
        crop = centre(image.shape[1], image.shape[0], crop)
    if crop:
        image = _cut(image, crop)
        done.append("cut")
    if size and image.shape[:2] != (size, size):
        from data_shards.images.pixels import square

        image = square(image, size)
        done.append("resized")
    height, width = image.shape[:2]
    return StoredImage(encode(image), width, height, ", ".join(done))


def pixels(data: bytes) -> np.ndarray:
    """Decode an image file in any format: uint8 [h, w, 3] RGB or [h, w, 1] grey, upright. Raises Rejected."""
    if not data:
        raise Rejected("empty file")
    if data[:2] == b"\xff\xd8":
        return _decode_jpeg(data, _jpeg_head(data))
    from data_shards.images.other_formats import read_other

    return read_other(data)[0]


def encode(image: np.ndarray) -> bytes:
    """Encode uint8 [h, w, 3] RGB or [h, w, 1] grey as JPEG, at QUALITY without chroma subsampling."""
    image = np.ascontiguousarray(image)
    if image.shape[2] == 1:
        return simplejpeg.encode_jpeg(image, QUALITY, "GRAY", "Gray", fastdct=False)
    return simplejpeg.encode_jpeg(image, QUALITY, "RGB", "444", fastdct=False)


def _jpeg_head(data: bytes) -> Head:
    try:
        head = read_head(data)
    except ValueError as error:
        raise Rejected(str(error)) from None
    if head.width * head.height > LARGEST:
        raise Rejected(f"{head.width} x {head.height} pixels are too many")
    if data.count(b"\xff\xda") > SCANS and (scans := count_scans(data)) > SCANS:
        raise Rejected(f"{scans} scans are too many")
    return head


def _needs(head: Head) -> list[str]:
    """Why the file's own bytes cannot be stored ([] = they can)."""
    needs = []
    if head.components == 4:
        needs.append("CMYK")
    elif head.components == 3 and head.adobe == 0:
        needs.append("RGB coding")  # legal, but some decoders read it as YCbCr
    if not head.common:
        needs.append("rare JPEG coding")
    if head.orientation != 1:
        needs.append("EXIF orientation")
    return needs


def _verify(data: bytes) -> str | None:
    """Decode once. Raises Rejected for damage; returns a warning that calls for a new encoding, else None.

    Grey output skips only the colour conversion: all of the entropy-coded data, where damage shows, is read.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY")
    except Exception as error:
        if str(error).startswith(HARMLESS):
            return str(error)
        raise Rejected(reason(error)) from None
    return None


def _decode_jpeg(data: bytes, head: Head) -> np.ndarray:
    """uint8 [h, w, 3 or 1], upright."""
    space = {1: "GRAY", 4: "CMYK"}.get(head.components, "RGB")

    def decode(strict: bool) -> np.ndarray:
        return simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False, strict=strict)

    try:
        try:
            image = decode(True)
        except ValueError as error:
            if not str(error).startswith(HARMLESS):
                raise
            image = decode(False)
    except Exception as error:  # whatever a decoder does with hostile bytes, a file must not end the packing
        raise Rejected(reason(error)) from None
    if space == "CMYK":  # stored inverted, as Adobe writes it and all readers assume: 255 means no ink
        inks = image
        image = by_strips(
            inks.shape,
            3,
            lambda low, high: (inks[low:high, :, :3].astype(np.uint16) * inks[low:high, :, 3:] + 127) // 255,
        )
    return upright(image, head.orientation)
