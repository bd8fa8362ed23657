"""What a YOLOv5 learns: where boxes are (CIoU), whether there is one (objectness), and of which class.

Where objects have landmarks it learns these too: `landmarks.py`.

The published recipe (Jocher et al., release 6.0, 2021): the target of the objectness is the overlap that the
predicted box reaches, finer scales weigh more, and the gains are scaled by scales, classes and image size.
Which anchors answer for which boxes: `assignment.py`; what the maps mean: `models/yolo_maps.py`.

Means are taken over each `unit` consecutive images of the global batch, then over these units: the loss is
then the same for any `micro_batch` and any number of ranks. Published is the mean over what a GPU holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hpc.losses.assignment import RATIO, Matches, Targets, covered_cells, match, shares
from hpc.losses.landmarks import landmark_loss
from hpc.metrics.boxes import from_centre_and_size
from models.yolo_maps import centres_and_sizes

BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}  # of the objectness, by scales, finest first
EPS = 1e-7


@dataclass(frozen=True)
class Gains:
    """Weights of the losses, and what else the recipe states."""

    box: float = 0.05
    objectness: float = 1.0
    classes: float = 0.5
    smoothing: float = 0.0  # of the classes, in [0, 1)
    ratio: float = RATIO
    landmarks: float = 0.05

    def scaled(self, *, scales: int, classes: int, side: int) -> "Gains":
        """Return the gains for so many scales and classes, and images of `side` pixels: as published."""
        by = 3 / scales
        return Gains(
            self.box * by,
            self.objectness * (side / 640) ** 2 * by,
            self.classes * classes / 80 * by,
            self.smoothing,
            self.ratio,
            self.landmarks * by,
        )


class Losses(NamedTuple):
    """Scalars, each with its gain."""

    box: Tensor
    objectness: Tensor
    classes: Tensor
    landmarks: Tensor | None = None  # of objects that have them

    @property
    def total(self) -> Tensor:
        boxes = self.box + self.objectness + self.classes
        return boxes if self.landmarks is None else boxes + self.landmarks


def ciou(one: Tensor, other: Tensor) -> Tensor:
    """Return the complete overlap of boxes side by side, [..., 4] centre and size each -> [...] in (-2, 1].

    Zheng et al., "Distance-IoU Loss" (AAAI 2020), equations 10 and 11; the weight of the aspect ratio has no
    gradient.
    """
    a, b = from_centre_and_size(one), from_centre_and_size(other)
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    both = common.prod(-1)
    union = one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - both + EPS
    overlap = both / union
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(-1) + EPS
    distance = (one[..., :2] - other[..., :2]).square().sum(-1)
    turn = torch.atan(other[..., 2] / (other[..., 3] + EPS)) - torch.atan(one[..., 2] / (one[..., 3] + EPS))
    aspect = (4 / math.pi**2) * turn.square()
    with torch.no_grad():
        weight = aspect / (aspect - overlap + 1 + EPS)
    return overlap - distance / diagonal - weight * aspect


def detection_loss(
    maps: Sequence[Tensor],
    targets: Targets,
    anchors: Tensor,
    strides: Sequence[int],
    *,
    classes: int,
    gains: Gains,
    unit: int = 1,
) -> Losses:
    """Return the losses of a batch, means over its images.

    maps: [n, anchors, h, w, values] each, before the sigmoid. anchors: [scales, anchors, 2] in pixels.
    gains: already `scaled`. unit: images of a mean, which divides n.
    """
    images = maps[0].shape[0]
    if images % unit:
        raise ValueError(f"{images} images are not whole units of {unit}")
    zero = maps[0].new_zeros((), dtype=torch.float32)
    box, objectness, kind, marks = zero, zero, zero, zero
    for values, sizes, stride, balance in zip(maps, anchors, strides, BALANCE[len(maps)], strict=True):
        values = values.float()
        shape = (values.shape[2], values.shape[3])
        found = match(targets, sizes, shape, stride, ratio=gains.ratio)
        at = (found.image, found.anchor, found.row, found.column)
        answers = values[at]
        share = shares(found.weight, found.image, images, unit)
        overlap = _overlap(answers, found, sizes / stride)
        box = box + ((1 - overlap) * share).sum()
        wanted, counted = _wanted(overlap.detach(), found, values.shape[:4], targets, stride)
        objectness = objectness + balance * _binary(values[..., 4], wanted, counted)
        if classes > 1:
            kind = kind + _classes(answers[:, 5 : 5 + classes], found, share, gains.smoothing)
        if targets.points is not None:
            said = answers[:, 5 + classes :]
            marks = marks + landmark_loss(
                said, found, targets.points, sizes, stride, size=shape, images=images, unit=unit
            )
    return Losses(
        gains.box * box,
        gains.objectness * objectness,
        gains.classes * kind,
        None if targets.points is None else gains.landmarks * marks,
    )


def _overlap(answers: Tensor, found: Matches, anchors: Tensor) -> Tensor:
    """Return the CIoU of each candidate's predicted box and its target, [k]; of no meaning at weight 0."""
    centre, size = centres_and_sizes(answers, anchors[found.anchor])
    there = (found.weight > 0)[:, None]
    safe = torch.where(there, found.size, 1.0)
    near = torch.where(there, found.centre, 0.5)
    return ciou(torch.cat([centre, size], -1), torch.cat([near, safe], -1))


def _wanted(
    overlap: Tensor, found: Matches, shape: Sequence[int], targets: Targets, stride: int
) -> tuple[Tensor, Tensor]:
    """Return the objectness to learn, and which cells count: [n, anchors, h, w] each.

    Where several boxes meet in a cell and anchor, the best overlap stands. Cells in an ignored box, and what
    it was matched with, count only where they are targets of another box.
    """
    images, anchors, rows, columns = shape
    flat = ((found.image * anchors + found.anchor) * rows + found.row) * columns + found.column
    size = images * anchors * rows * columns
    none = torch.zeros(size, device=flat.device)
    wanted = none.scatter_reduce(0, flat, overlap.clamp(min=0) * found.weight, "amax")
    target = none.scatter_reduce(0, flat, found.weight, "amax").view(images, anchors, rows, columns)
    matched = none.scatter_reduce(0, flat, found.ignored, "amax").view(images, anchors, rows, columns)
    inside = covered_cells(targets, images, (rows, columns), stride)[:, None]
    counted = (target > 0) | ~(inside | (matched > 0))
    return wanted.view(images, anchors, rows, columns), counted


def _binary(logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of the binary cross-entropy over all cells and anchors; what does not count is 0."""
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return torch.where(counted, each, 0.0).mean()


def _classes(logits: Tensor, found: Matches, share: Tensor, smoothing: float) -> Tensor:
    """Return the mean of the binary cross-entropy over the classes [k, c] of targets whose class is known."""
    wanted = torch.full_like(logits, smoothing / 2)
    wanted.scatter_(1, found.classes.clamp(min=0)[:, None], 1 - smoothing / 2)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
    return (each * share * (found.classes >= 0)).sum()
