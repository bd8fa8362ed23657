"""Cutmix: a rectangle of each image is replaced by a partner's (Yun et al., "CutMix", ICCV 2019)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.ops.base import Op, join, partners, pick, unsuited, upload
from data_shards.ops.erasing import rectangle_mask
from data_shards.ops.geometry import clip_boxes, keep_visible
from data_shards.ops.mixing import beta, both, mix_labels
from data_shards.ragged import Ragged


class Cutmix(Op):
    """Paste a rectangle of one partner of its unit into each chosen slot, masks and boxes too.

    Labels as `ops/mixing.py` says.
    alpha: of the Beta distribution of the own share; the rectangle is cut off at the border, and the share is
    that of the pixels left. share: of the slots. unit: slots among which partners are found. Of a box that
    the rectangle covers in part, the box around the rest remains. Raises UserError for points, and for boxes
    that are not ragged.
    """

    draws = 5

    def __init__(self, *, alpha: float = 1.0, share: float = 0.5, unit: int = 8) -> None:
        self.alpha, self.share, self.unit = alpha, share, unit

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        for name in batch.named("boxes", "points"):
            if batch.kinds[name] == "points" or isinstance(batch.labels[name], Tensor):
                raise unsuited(batch, "cutmix", name, instead="use erasing")
        other = partners(noise[:, :1], self.unit)[:, 0]
        cut = self._rectangles(noise, batch.size)
        mix = 1 - np.prod(cut[:, 2:] - cut[:, :2], axis=1) / np.prod(batch.size)
        inside = rectangle_mask(cut, batch.size, batch.device)
        images, (labels, kinds) = {**batch.images}, mix_labels(batch, "cutmix", other, mix)
        for name in batch.named("image", "mask"):
            images[name] = torch.where(inside, pick(images[name], other), images[name])
        for name, label in batch.labels.items():
            if isinstance(label, Ragged):
                rows, slot, column = join(label, both(other, mix))
                if batch.kinds.get(name) == "boxes":
                    rows = Ragged(_paste(rows.rows, cut[slot], column == 1), rows.starts)
                labels[name] = rows
        return replace(batch, images=images, labels=labels, kinds=kinds, placed=None)

    def _rectangles(self, noise: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """int64 [n, 4]: what each slot takes from its partner, in whole pixels; empty if not chosen."""
        sides = np.array([size[1], size[0]])
        half = np.rint(np.sqrt(1 - beta(self.alpha, noise[:, 2]))[:, None] * sides) / 2
        centre = noise[:, 3:5] * sides
        low, high = (np.clip(np.rint(edge), 0, sides) for edge in (centre - half, centre + half))
        boxes = np.concatenate([low, high], axis=1)
        return np.where(noise[:, 1:2] < self.share, boxes, 0).astype(np.int64)


def _paste(boxes: Tensor, cut: np.ndarray, pasted: np.ndarray) -> Tensor:
    """Boxes [m, 4] in the rectangle (pasted), and what is left of those outside of it."""
    shown = clip_boxes(boxes, cut, absent=boxes)
    rest = keep_visible(_without(boxes, upload(cut, boxes.device)), boxes, absent=boxes)
    return torch.where(upload(pasted, boxes.device, torch.bool)[:, None], shown, rest)


def _without(boxes: Tensor, cut: Tensor) -> Tensor:
    """The boxes [m, 4] around what rectangles [m, 4] leave of boxes: smaller if a whole side is covered."""
    covers = (cut[:, :2] <= boxes[:, :2]) & (cut[:, 2:] >= boxes[:, 2:])  # along x, along y
    low_hidden, high_hidden = cut[:, :2] <= boxes[:, :2], cut[:, 2:] >= boxes[:, 2:]
    across = covers.flip(1)  # a side can move in x only if all of y is covered
    low = torch.where(across & low_hidden, torch.maximum(boxes[:, :2], cut[:, 2:]), boxes[:, :2])
    high = torch.where(across & high_hidden, torch.minimum(boxes[:, 2:], cut[:, :2]), boxes[:, 2:])
    # a rectangle that does not reach the box moves nothing; one that covers all of it leaves less than
    # nothing
    low = torch.minimum(low, boxes[:, 2:])
    return torch.cat([low, torch.maximum(high, low)], dim=1)
