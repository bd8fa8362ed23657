"""Mixup: each image is a weighted mean of two (Zhang et al., "mixup", ICLR 2018)."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from data_shards.batch import Batch
from data_shards.ops.base import Op, join, partners, pick, unsuited, upload
from data_shards.ops.mixing import beta, both, mix_labels
from data_shards.ragged import Ragged


class Mixup(Op):
    """Blend each chosen slot with one partner of its unit; labels as `ops/mixing.py` says.

    alpha: of the Beta distribution of the own share. share: of the slots. unit: slots among which partners
    are found.
    Raises UserError for masks, and for boxes and points that are not ragged: two of them cannot be blended.
    """

    draws = 3

    def __init__(self, *, alpha: float = 0.2, share: float = 1.0, unit: int = 8) -> None:
        self.alpha, self.share, self.unit = alpha, share, unit

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        for name in batch.named("mask", "boxes", "points"):
            if name in batch.images or isinstance(batch.labels[name], Tensor):
                raise unsuited(batch, "mixup", name, instead="use cutmix or erasing")
        other = partners(noise[:, :1], self.unit)[:, 0]
        # rounded here, so that images and losses have the same weight
        mix = np.where(noise[:, 1] < self.share, beta(self.alpha, noise[:, 2]), 1.0).astype(np.float32)
        own = upload(mix, batch.device)[:, None, None, None]
        images, (labels, kinds) = {**batch.images}, mix_labels(batch, "mixup", other, mix)
        for name in batch.named("image"):
            images[name] = (images[name] * own + pick(images[name], other) * (1 - own)).clamp_(-1, 1)
        for name, label in batch.labels.items():
            if isinstance(label, Ragged):
                labels[name] = join(label, both(other, mix))[0]
        return replace(batch, images=images, labels=labels, kinds=kinds, placed=None)
