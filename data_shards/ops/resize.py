"""Resize: all images of an update get another size, as for training at several scales."""

from dataclasses import replace

import numpy as np
import torch.nn.functional as F

from data_shards.batch import Batch
from data_shards.ops.base import Op, each_row
from data_shards.sampling.placed import UNKNOWN_POINT


class Resize(Op):
    """Images of `size` = (height, width) pixels: bilinear, masks nearest; boxes and points follow.

    Nothing is drawn: the task states the size of an update by its clock (`scale_at`), equal on all ranks.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        height, width = batch.size
        if (height, width) == self.size:
            return batch
        images, labels = {**batch.images}, {**batch.labels}
        for name in batch.named("image"):
            images[name] = F.interpolate(
                images[name], self.size, mode="bilinear", align_corners=False, antialias=False
            )
        for name in batch.named("mask"):
            images[name] = F.interpolate(images[name], self.size, mode="nearest-exact")
        by = images[batch.named("image")[0]].new_tensor([self.size[1] / width, self.size[0] / height])
        for name in batch.named("boxes"):
            labels[name] = each_row(labels[name], lambda rows, own: rows * by.repeat(2))
        for name in batch.named("points"):
            labels[name] = each_row(
                labels[name],
                lambda rows, own: rows.where((rows == UNKNOWN_POINT).all(-1, keepdim=True), rows * by),
            )
        return replace(batch, images=images, labels=labels, placed=None)
