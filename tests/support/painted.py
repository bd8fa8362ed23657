"""Painted rectangles: pixels whose place is known, to compare labels with what became of the pixels."""

import cv2
import numpy as np
import simplejpeg


def paint(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 [h, w, 3]: white where `box` (x0, y0, x1, y1) is, black elsewhere. size: width, height."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def as_jpeg(image: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(image, 98, "RGB", "444", fastdct=False)


def as_png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


def found_box(light: np.ndarray) -> np.ndarray:
    """float [4]: the box of the one bright rectangle of `light` [h, w] in [0, 1], whose edges cross half."""
    rows, columns = light.max(axis=1), light.max(axis=0)
    (x0, x1), (y0, y1) = _edges(columns), _edges(rows)
    return np.array([x0, y0, x1, y1])


def _edges(profile: np.ndarray) -> tuple[float, float]:
    bright = np.flatnonzero(profile >= 0.5)
    assert len(bright), "nothing is painted"
    return _rise(profile, bright[0]), len(profile) - _rise(profile[::-1], len(profile) - 1 - bright[-1])


def _rise(profile: np.ndarray, first: int) -> float:
    """Where the profile rises through one half, in pixel edges; pixel `first` is the first one above it."""
    if first == 0:
        return 0.0
    below, above = profile[first - 1], profile[first]
    return float(first - 0.5 + (0.5 - below) / (above - below))
