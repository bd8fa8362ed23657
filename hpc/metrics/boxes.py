"""Boxes as tensors: their forms, areas and overlaps. All are x0, y0, x1, y1 in pixel edges, as in `Placed`.

A box is as wide as x1 - x0; `extra=1` is for protocols that count the pixels from x0 to x1 inclusive. Losses
over boxes, which need gradients: `hpc/losses/detection.py`. Figures: `average_precision.py`, `wider.py`.
"""

import torch
from torch import Tensor


def from_corner_and_size(boxes: Tensor) -> Tensor:
    """Turn x, y, width, height [..., 4] into x0, y0, x1, y1."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def to_corner_and_size(boxes: Tensor) -> Tensor:
    """Turn x0, y0, x1, y1 [..., 4] into x, y, width, height."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def from_centre_and_size(boxes: Tensor) -> Tensor:
    """Turn centre x, centre y, width, height [..., 4] into x0, y0, x1, y1."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def to_centre_and_size(boxes: Tensor) -> Tensor:
    """Turn x0, y0, x1, y1 [..., 4] into centre x, centre y, width, height."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def clipped(boxes: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Return the parts of `boxes` [..., 4] within images of these sizes in pixels, numbers or [...] each."""
    limits = [torch.as_tensor(side, dtype=boxes.dtype, device=boxes.device) for side in (width, height)]
    high = torch.stack([*limits, *limits], -1)
    return torch.minimum(boxes.clamp(min=0), high)


def area(boxes: Tensor, *, extra: float = 0.0) -> Tensor:
    """Return the areas [...] of boxes [..., 4]; 0 where a side is not above 0."""
    sides = (boxes[..., 2:] - boxes[..., :2] + extra).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def intersection(one: Tensor, other: Tensor, *, extra: float = 0.0) -> Tensor:
    """Return the areas that boxes have in common; leading axes are broadcast as torch does it."""
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    sides = (high - low + extra).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def paired_iou(one: Tensor, other: Tensor, *, extra: float = 0.0) -> Tensor:
    """Return intersection over union of boxes side by side, [..., 4] each -> [...]; 0 for 0 / 0."""
    both = intersection(one, other, extra=extra)
    union = area(one, extra=extra) + area(other, extra=extra) - both
    return torch.where(union > 0, both / union, torch.zeros_like(both))


def iou(one: Tensor, other: Tensor, *, extra: float = 0.0) -> Tensor:
    """Return intersection over union of every pair: [..., m, 4], [..., k, 4] -> [..., m, k]; 0 for 0 / 0."""
    return paired_iou(one[..., :, None, :], other[..., None, :, :], extra=extra)


def covered(one: Tensor, other: Tensor) -> Tensor:
    """Return what share of each of `one` each of `other` covers: [..., m, 4], [..., k, 4] -> [..., m, k].

    It stands in the place of `iou` where `other` is a crowd, in which any number of `one` may be (COCO).
    """
    both = intersection(one[..., :, None, :], other[..., None, :, :])
    whole = area(one)[..., :, None]
    return torch.where(whole > 0, both / whole, torch.zeros_like(both))
