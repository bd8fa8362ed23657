"""Colour: brightness, contrast, saturation, hue and gamma of each image, as one matrix and one table."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from data_shards.batch import Batch
from data_shards.ops.base import Op, change_rows
from data_shards.ops.tone import LEVELS, apply_matrix, apply_table
from data_shards.sampling import colour


class Colour(Op):
    """Random colours of each slot, all of its images alike; masks and boxes stay.

    brightness, contrast, saturation: x, the factor is drawn from [1 - x, 1 + x]. hue: degrees, drawn from
    [-x, x], a rotation in YIQ (`Hsv` turns the true hue). gamma: x, the exponent is drawn log-uniformly from
    [1 / (1 + x), 1 + x].
    share: of the slots. Padding takes part: it is grey, and moves with brightness.
    """

    draws = 2 + colour.DRAWS

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        gamma: float = 0.0,
        share: float = 1.0,
    ) -> None:
        self.strengths = (brightness, contrast, saturation, hue)
        self.gamma, self.share = gamma, share

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        maps = colour.to_unit_range(colour.draw_maps(self.strengths, noise[:, 2:]))
        exponent = (1 + self.gamma) ** (2 * noise[:, 1] - 1)
        tables = 255 * (LEVELS / 255) ** exponent[:, None]

        def change(part: Tensor, rows: np.ndarray) -> Tensor:
            if any(self.strengths):
                part = apply_matrix(part, maps[rows])
            return apply_table(part, tables[rows]) if self.gamma else part

        images = {**batch.images}
        for name in batch.named("image"):
            images[name] = change_rows(images[name], noise[:, 0] < self.share, change)
        return replace(batch, images=images)
