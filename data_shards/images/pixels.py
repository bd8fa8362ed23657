"""The centre square of an image at the size that a network sees: the only resize of whole images.

Packing, the decoding of evaluations, `verify` and the card of an export share it, so an image has one score.
The random crops of training are resized by their decoders: `loading/host.py`, `loading/dali.py`.
"""

from collections.abc import Callable

import cv2
import numpy as np

KERNEL = "OpenCV INTER_AREA where it shrinks, INTER_CUBIC where it grows"
LARGEST = 100_000_000  # pixels; more are a mistake or an attack on the memory
STRIP = 1 << 18  # pixels that are converted at a time

Crop = tuple[int, int, int, int]  # x, y, width, height in pixels of the upright image


class Rejected(ValueError):
    """A file that cannot become a sample; the message is the reason that rejected.csv states."""


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The centre square of uint8 [h, w, channels], resized to [size, size, channels] by KERNEL."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    part = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side == size:
        return part
    kernel = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(part, (size, size), interpolation=kernel).reshape(size, size, image.shape[2])


def by_strips(shape: tuple[int, ...], channels: int, strip: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """uint8 [h, w, channels] from strip(first row, end): a wider type never holds all of a large image."""
    height, width = shape[:2]
    image = np.empty((height, width, channels), np.uint8)
    step = max(1, STRIP // width)
    for low in range(0, height, step):
        high = min(low + step, height)
        image[low:high] = strip(low, high)
    return image


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, 1 to 8 (Exif 2.3, table 4.6.5.1), to [h, w, ...]; returns a view."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def centre(width: int, height: int, side: float) -> Crop | None:
    """The centre square: `side` in pixels, or up to 1 a share of the shorter side. None: it is all."""
    shorter = min(width, height)
    pixels = min(shorter, max(1, round(side * shorter if side <= 1 else side)))
    if (width, height) == (pixels, pixels):
        return None
    return (width - pixels) // 2, (height - pixels) // 2, pixels, pixels


def _cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    """The part of the crop that is inside the image. Raises Rejected if there is none."""
    x, y, width, height = crop
    part = image[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    if not part.size:
        raise Rejected(f"crop {crop} lies outside the picture of {image.shape[1]} x {image.shape[0]}")
    return part


def reason(error: Exception) -> str:
    """The reason of a Rejected for what a decoder raised, on one line."""
    return f"does not decode: {' '.join(str(error).split()) or type(error).__name__}"
