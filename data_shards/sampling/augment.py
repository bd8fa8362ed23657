"""Augmentation parameters of images, from counted randomness: (seed, position in the stream, member).

This module only draws numbers, for a whole batch at once; `loading/host.py` and `loading/dali.py` apply them,
so both backends show the same crops. Random resized crop: area and log-uniform ratio as in Szegedy et al.,
"Going deeper with convolutions", CVPR 2015, section 6, in torchvision's form (10 attempts, then the largest
one in the centre).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_shards import counter_rng

_ATTEMPTS = 10
# Draws of an image: flip, four colour strengths, then the crop: its place, area and ratio of each attempt.
_CROP_FROM, _DRAWS = 5, 5 + 2 + 2 * _ATTEMPTS
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


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
    return Augmentation(_centre_square(widths, heights), np.zeros(len(widths), bool), None, exact=True)


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
    whole = list(config.crop_area) == [1, 1]
    draws = _CROP_FROM if whole else _DRAWS
    noise = counter_rng.uniform(counter_rng.key(seed, "augment", member), positions, draws)
    random_crop = noise[:, _CROP_FROM:]
    crop = _centre_square(widths, heights) if whole else _random_crop(config, random_crop, widths, heights)
    return Augmentation(crop, noise[:, 0] < config.flip, _colour(config, noise[:, 1:_CROP_FROM]))


def _centre_square(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    widths, heights = np.asarray(widths).astype(np.int32), np.asarray(heights).astype(np.int32)
    side = np.minimum(widths, heights)
    return np.stack([(widths - side) // 2, (heights - side) // 2, side, side], axis=1)


def _random_crop(
    config: AugmentConfig, noise: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    wide, high = (np.asarray(sides).astype(np.float64)[:, None] for sides in (widths, heights))
    (area_low, area_high), (ratio_low, ratio_high) = config.crop_area, config.crop_ratio
    area = wide * high * (area_low + (area_high - area_low) * noise[:, 2::2])
    low, up = np.log(ratio_low), np.log(ratio_high)
    ratio = np.exp(low + (up - low) * noise[:, 3::2])
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (width >= 1) & (width <= wide) & (height >= 1) & (height <= high)
    rows, first = np.arange(len(noise)), fits.argmax(axis=1)
    width, height = width[rows, first], height[rows, first]
    wide, high = wide[:, 0], high[:, 0]
    x = np.floor(noise[:, 0] * (wide - width + 1))
    y = np.floor(noise[:, 1] * (high - height + 1))
    # Where none of the attempts fits: the largest crop of an allowed ratio, in the middle.
    central_width = np.minimum(wide, np.maximum(1, np.rint(high * ratio_high)))
    central_height = np.minimum(high, np.maximum(1, np.rint(wide / ratio_low)))
    any_fits = fits.any(axis=1)
    width, height = np.where(any_fits, width, central_width), np.where(any_fits, height, central_height)
    x = np.where(any_fits, x, (wide - width) // 2)
    y = np.where(any_fits, y, (high - height) // 2)
    return np.stack([x, y, width, height], axis=1).astype(np.int32)


def _colour(config: AugmentConfig, noise: np.ndarray) -> np.ndarray | None:
    """The maps of brightness, contrast about mid-grey, saturation about luma and hue (a rotation in YIQ)."""
    strengths = np.array([config.brightness, config.contrast, config.saturation, config.hue], np.float64)
    if not strengths.any():
        return None
    span = (2 * noise - 1) * strengths
    bright, contrast, saturation = (np.maximum(0, 1 + span[:, i]) for i in range(3))
    angle = np.deg2rad(span[:, 3])
    grey = np.broadcast_to(_LUMA, (3, 3))  # every channel becomes the luma
    matrix = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
    turn = np.zeros((len(noise), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
    matrix = _RGB @ turn @ _YIQ @ matrix
    out = np.empty((len(noise), 3, 4), np.float32)
    out[:, :, :3] = matrix * (bright * contrast)[:, None, None]
    out[:, :, 3] = (matrix @ np.full(3, 127.5)) * (1 - contrast)[:, None]
    return out
