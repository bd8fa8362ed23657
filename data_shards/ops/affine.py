"""Affine: turn, scale, shear and shift each image about its centre, with its masks, boxes and points."""

from dataclasses import replace

import numpy as np

from data_shards.batch import Batch
from data_shards.ops.base import Op, change_rows, each_row
from data_shards.ops.geometry import move_boxes, move_points, warp


class Affine(Op):
    """A random affine map of each slot; what comes from outside of the image is padding.

    degrees: x, the angle is drawn from [-x, x]. scale: least and most, drawn log-uniformly. shear: x, the
    tangent is drawn from [-x, x] for each axis. shift: x, a share of the side, drawn from [-x, x]. share: of
    the slots.
    """

    draws = 7

    def __init__(
        self,
        *,
        degrees: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        shift: float = 0.0,
        share: float = 1.0,
    ) -> None:
        self.degrees, self.scale, self.shear, self.shift, self.share = degrees, scale, shear, shift, share

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        span = 2 * noise - 1
        low, high = np.log(self.scale)
        maps = linear(
            angle=span[:, 1] * self.degrees,
            scale=np.exp(low + (high - low) * noise[:, 2]),
            shear=span[:, 3:5] * self.shear,
        )
        return move(batch, centred(maps, span[:, 5:7] * self.shift, batch.size), noise[:, 0] < self.share)


def linear(*, angle: np.ndarray, scale: np.ndarray, shear: np.ndarray) -> np.ndarray:
    """float64 [n, 2, 2]: shear, then scale, then turn by degrees.

    shear: [n, 2], tangents of x along y and of y along x.
    A positive angle turns clockwise as seen on the screen, since y points down.
    """
    turn = np.deg2rad(angle)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
    ones = np.ones_like(turn)
    slant = np.stack([ones, shear[:, 0], shear[:, 1], ones], axis=1).reshape(-1, 2, 2)
    return rotation @ slant * scale[:, None, None]


def centred(maps: np.ndarray, shift: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float64 [n, 2, 3]: linear maps [n, 2, 2] about the centre of an image, then a shift.

    size: height, width. shift: [n, 2], in shares of width and height.
    """
    sides = np.array([size[1], size[0]], np.float64)
    centre = sides / 2
    offset = centre + shift * sides - maps @ centre
    return np.concatenate([maps, offset[:, :, None]], axis=2)


def move(batch: Batch, to_target: np.ndarray, chosen: np.ndarray) -> Batch:
    """Move images, masks, boxes and points of the chosen slots, bool [n], by matrices [n, 2, 3]."""
    to_target = np.where(chosen[:, None, None], to_target, np.eye(2, 3))
    square = np.concatenate([to_target, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(to_target), 1, 3))], axis=1)
    to_source = np.linalg.inv(square)[:, :2]
    images = {**batch.images}
    for name in batch.named("image", "mask"):
        images[name] = change_rows(images[name], chosen, lambda part, rows: warp(part, to_source[rows]))
    labels = {
        **batch.labels,
        **{
            name: each_row(batch.labels[name], lambda rows, own: move_boxes(rows, to_target[own], batch.size))
            for name in batch.named("boxes")
        },
        **{
            name: each_row(batch.labels[name], lambda rows, own: move_points(rows, to_target[own]))
            for name in batch.named("points")
        },
    }
    return replace(batch, images=images, labels=labels, placed=None)
