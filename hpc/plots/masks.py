"""Draws masks: a colour for each class, alone or over the image. Class 0, the background, stays bare."""

import numpy as np

from data_shards.images.masks import UNKNOWN

OPAQUE = 0.5  # how much of a pixel of a class is its colour
RGB = ((230, 60, 60), (60, 140, 230), (60, 180, 90), (235, 170, 40), (150, 90, 200), (40, 190, 190))
EDGE = (255, 255, 255)  # between classes


def colours(count: int) -> np.ndarray:
    """Return the colours of `count` classes, uint8 [count, 3] RGB: black, then those of RGB in turn."""
    return np.array([(0, 0, 0), *(RGB[number % len(RGB)] for number in range(count - 1))], np.uint8)


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return `image` uint8 [h, w, 3] below the colours of `mask` uint8 [h, w], whose edges are white."""
    tints = colours(UNKNOWN + 1)[mask].astype(np.float32)
    shown = ((mask != 0) & (mask != UNKNOWN))[..., None]
    drawn = np.where(shown, (1 - OPAQUE) * image + OPAQUE * tints, image)
    drawn[edges(mask)] = EDGE
    return np.rint(drawn).astype(np.uint8)


def edges(mask: np.ndarray) -> np.ndarray:
    """Return bool [h, w]: the pixels of a class whose right or lower neighbour is of another one."""
    known, found = mask != UNKNOWN, np.zeros(mask.shape, bool)
    found[:, :-1] |= (mask[:, 1:] != mask[:, :-1]) & known[:, 1:] & known[:, :-1]
    found[:-1] |= (mask[1:] != mask[:-1]) & known[1:] & known[:-1]
    return found
