"""Cuts what a mask shows out of its picture: with an alpha channel, or over a plain background."""

import re

import numpy as np

from data_shards.errors import UserError
from data_shards.images.masks import UNKNOWN


def shown(mask: np.ndarray) -> np.ndarray:
    """Return bool [h, w]: the pixels of a class but the background, which is 0; unknown ones are left out."""
    return (mask != 0) & (mask != UNKNOWN)


def with_alpha(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return uint8 [h, w, 4] RGBA of an image uint8 [h, w, 3]; what is left out is black and transparent."""
    kept = shown(mask)[..., None]
    return np.concatenate([image * kept, 255 * kept.astype(np.uint8)], axis=2)


def over(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return uint8 [h, w, 3]: what the mask shows, over a plain colour, for a video, which has no alpha."""
    return np.where(shown(mask)[..., None], image, np.array(colour, np.uint8))


def colour_of(text: str) -> tuple[int, int, int]:
    """Read a colour, RRGGBB. UserError for anything else."""
    if not re.fullmatch(r"[0-9a-fA-F]{6}", text):
        raise UserError(f"background={text} is not a colour: type RRGGBB, as background=00ff00")
    red, green, blue = (int(text[at : at + 2], 16) for at in (0, 2, 4))
    return red, green, blue
