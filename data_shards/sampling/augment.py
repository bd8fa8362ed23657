"""Augmentation parameters of square images: the view that the settings of `data.augment` describe.

`view.py` draws the numbers; `loading/host.py` and `loading/dali.py` apply them, so both backends show the
same crops.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_shards.sampling import view
from data_shards.sampling.view import DecodePlan, View

_SQUARE = (1, 1)  # crops and flips depend on the shape of the target, not on its size


class AugmentConfig(Protocol):
    """The settings of augmentation: `hpc.config.schema.Augment` states their meaning and limits."""

    crop_area: list[float]
    crop_ratio: list[float]
    flip: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class Augmentation:
    """What happens to each of n images: cut `crop`, resize to the network's size, recolour, flip."""

    crop: np.ndarray  # [n, 4] int32: x, y, width, height in pixels of the stored image
    flip: np.ndarray  # [n] bool: left and right change places
    colour: np.ndarray | None  # [n, 3, 4] float32: affine map of RGB in 0..255 (None = keep the colours)
    exact: bool = False  # the whole centre square by `pixels.square`, whatever it costs: evaluation

    def __len__(self) -> int:
        return len(self.crop)


def centre(widths: np.ndarray, heights: np.ndarray) -> Augmentation:
    """The largest square in the middle of each image, for evaluation. widths, heights: [n] pixels."""
    return _augmentation(view.still(View(_SQUARE), widths, heights))


def draw(
    config: AugmentConfig,
    seed: int,
    positions: np.ndarray,
    member: int,
    widths: np.ndarray,
    heights: np.ndarray,
) -> Augmentation:
    """Draw the parameters of n images: row i depends on nothing but its own position, width and height.

    positions: [n] in the stream; member: of the slot; widths, heights: [n] pixels of the stored images.
    """
    return _augmentation(view.draw(view_of(config, _SQUARE), seed, positions, member, widths, heights))


def view_of(config: AugmentConfig, target: tuple[int, int]) -> View:
    """The view with these settings of a target (height, width) that images are cut to cover."""
    (area_low, area_high), (ratio_low, ratio_high) = config.crop_area, config.crop_ratio
    return View(
        target,
        crop_area=(area_low, area_high),
        crop_ratio=(ratio_low, ratio_high),
        flip=config.flip,
        brightness=config.brightness,
        contrast=config.contrast,
        saturation=config.saturation,
        hue=config.hue,
    )


def _augmentation(plan: DecodePlan) -> Augmentation:
    return Augmentation(plan.placed.crop, plan.placed.flip, plan.colour, plan.exact)
