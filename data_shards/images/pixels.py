"""The centre square of a picture at the size that a network sees: the only resize of whole pictures.

Packing, the decoding of evaluations, `verify` and the card of an export share it, so one picture has one score. The
random crops of training are resized by their decoders: `host.py`, `dali.py`.
"""

import cv2
import numpy as np

KERNEL = "OpenCV INTER_AREA where it shrinks, INTER_CUBIC where it grows"


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
