"""The centre square of a picture at the size of its set, through OpenCV. Use it by pictures.normalise."""

import cv2
import numpy as np


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The centre square, resized to size x size: area filter when it shrinks, cubic when it grows."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    part = np.ascontiguousarray(image[top : top + side, left : left + side])
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(part, (size, size), interpolation=how).reshape(size, size, image.shape[2])
