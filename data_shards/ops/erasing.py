"""Erasing: cover a random rectangle of each image (Zhong et al., "Random erasing", AAAI 2020)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.ops.base import Op, upload
from data_shards.sampling.placed import UNKNOWN

FILLS = ("grey", "colour")


class Erasing(Op):
    """A rectangle of each chosen slot becomes grey (0) or a random colour, of its masks unknown (255).

    area: least and most, a share of the image. ratio: least and most, height / width, drawn log-uniformly.
    share: of the slots. Boxes and points stay: what they mark is hidden, not gone.
    """

    draws = 8

    def __init__(
        self,
        *,
        area: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: str = "grey",
        share: float = 0.5,
    ) -> None:
        if fill not in FILLS:
            raise ValueError(f"fill={fill} is not known: use {', '.join(FILLS)}")
        self.area, self.ratio, self.fill, self.share = area, ratio, fill, share

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        boxes = self._rectangles(noise, batch.size)
        inside = rectangle_mask(boxes, batch.size, batch.device)
        shades = 2 * noise[:, 5:] - 1 if self.fill == "colour" else np.zeros((len(noise), 3))
        colour = upload(shades, batch.device)[:, :, None, None]
        images = {**batch.images}
        for name in batch.named("image"):
            images[name] = torch.where(inside, colour, images[name])
        for name in batch.named("mask"):
            images[name] = images[name].masked_fill(inside, UNKNOWN)
        return replace(batch, images=images)

    def _rectangles(self, noise: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """int64 [n, 4]: the rectangle of each slot, in whole pixels; an empty one where it is not chosen."""
        (height, width), (low, high) = size, np.log(self.ratio)
        area = height * width * (self.area[0] + (self.area[1] - self.area[0]) * noise[:, 1])
        ratio = np.exp(low + (high - low) * noise[:, 2])
        tall = np.clip(np.rint(np.sqrt(area * ratio)), 1, height)
        wide = np.clip(np.rint(np.sqrt(area / ratio)), 1, width)
        x0, y0 = np.floor(noise[:, 3] * (width - wide + 1)), np.floor(noise[:, 4] * (height - tall + 1))
        boxes = np.stack([x0, y0, x0 + wide, y0 + tall], axis=1)
        return np.where(noise[:, :1] < self.share, boxes, 0).astype(np.int64)


def rectangle_mask(boxes: np.ndarray, size: tuple[int, int], device: torch.device) -> Tensor:
    """bool [n, 1, h, w]: the pixels inside of boxes [n, 4] of whole pixels."""
    edges = upload(boxes, device, torch.int64)[:, :, None, None]
    x = torch.arange(size[1], device=device)
    y = torch.arange(size[0], device=device)[:, None]
    return ((x >= edges[:, 0]) & (x < edges[:, 2]) & (y >= edges[:, 1]) & (y < edges[:, 3]))[:, None]
