"""Colour changes as one affine map of RGB for each image: brightness, contrast, saturation, hue.

The decoders apply the maps to 8-bit pixels, `ops/colour.py` to images in [-1, 1]. Only numbers are made here,
from draws that the caller takes from `counter_rng.py`.
"""

from collections.abc import Sequence

import numpy as np

DRAWS = 4  # of an image: brightness, contrast, saturation, hue
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


def draw_maps(strengths: Sequence[float], noise: np.ndarray) -> np.ndarray:
    """float32 [n, 3, 4]: random maps of RGB on 0..255.

    strengths: of brightness, contrast and saturation, as `factor in [1 - x, 1 + x]`, and of hue in degrees.
    noise: float64 [n, DRAWS] in [0, 1).
    """
    span = (2 * noise - 1) * np.asarray(strengths, np.float64)
    bright, contrast, saturation = (np.maximum(0, 1 + span[:, i]) for i in range(3))
    return maps(bright, contrast, saturation, span[:, 3])


def maps(brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """float32 [n, 3, 4]: maps of RGB on 0..255 for stated factors [n] and a hue [n] in degrees.

    Applied in this order: brightness, contrast about mid-grey, saturation about luma, hue (a rotation in
    YIQ).
    """
    angle = np.deg2rad(hue)
    grey = np.broadcast_to(_LUMA, (3, 3))  # every channel becomes the luma
    matrix = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
    matrix = _RGB @ turn @ _YIQ @ matrix
    out = np.empty((len(angle), 3, 4), np.float32)
    out[:, :, :3] = matrix * (brightness * contrast)[:, None, None]
    out[:, :, 3] = (matrix @ np.full(3, 127.5)) * (1 - contrast)[:, None]
    return out


def to_unit_range(maps: np.ndarray) -> np.ndarray:
    """The maps [n, 3, 4] of RGB on 0..255 as maps of RGB in [-1, 1], where 0 is 127.5."""
    out = maps.copy()
    out[:, :, 3] = maps[:, :, :3].sum(axis=2) + maps[:, :, 3] / 127.5 - 1
    return out
