"""Hsv: shift the true hue, scale saturation and value of each image: 4 times the cost of `Colour`."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.ops.base import Op, change_rows, upload


class Hsv(Op):
    """Random hue, saturation and value of each slot, in the hexcone model (Smith, SIGGRAPH 1978).

    hue: x, degrees, drawn from [-x, x]. saturation, value: x, the factor is drawn from [1 - x, 1 + x]. share:
    of the slots. Masks and boxes stay.
    """

    draws = 4

    def __init__(
        self, *, hue: float = 0.0, saturation: float = 0.0, value: float = 0.0, share: float = 1.0
    ) -> None:
        self.hue, self.saturation, self.value, self.share = hue, saturation, value, share

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        span = 2 * noise[:, 1:] - 1
        turn = span[:, 0] * self.hue / 60
        factors = np.maximum(0, 1 + span[:, 1:] * [self.saturation, self.value])
        images = {**batch.images}
        for name in batch.named("image"):
            images[name] = change_rows(
                images[name],
                noise[:, 0] < self.share,
                lambda part, rows: shift_hsv(part, turn[rows], factors[rows, 0], factors[rows, 1]),
            )
        return replace(batch, images=images)


def shift_hsv(images: Tensor, turn: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> Tensor:
    """RGB images [n, 3, h, w] in [-1, 1] with another hue, saturation and value.

    turn: [n], sixths of the circle that the hue moves on. saturation, value: [n], factors; the products are
    clamped.
    """
    turn_by, more, brighter = (
        upload(part, images.device)[:, None, None, None] for part in (turn, saturation, value)
    )
    rgb = (images + 1) / 2
    most, least = rgb.amax(dim=1, keepdim=True), rgb.amin(dim=1, keepdim=True)
    chroma = most - least
    red, green, blue = (rgb[:, at : at + 1] for at in range(3))
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    hue = torch.where(
        most == red,
        (green - blue) / safe,
        torch.where(most == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    bright = (most * brighter).clamp_(0, 1)
    amount = (chroma / torch.where(most > 0, most, torch.ones_like(most)) * more).clamp_(0, 1)
    # each channel is a trapezoid of the hue, shifted by 5, 3 and 1 sixths
    shifts = upload(np.array([5, 3, 1]), images.device)[None, :, None, None]
    place = (hue + turn_by + shifts).remainder(6)
    out = bright - bright * amount * torch.minimum(place, 4 - place).clamp_(0, 1)
    return (out * 2 - 1).clamp_(-1, 1)
