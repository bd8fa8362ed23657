"""Where the landmarks of an object are: the wing loss of what matched anchors say of those that are known.

Each anchor states x and y of all landmarks from the corner of its cell, in its own size (YOLO5Face, Qi et al.
2021, section 3; `models/yolo_maps.py`). Errors are shares of the square root of the box's area, so that large
and small objects count alike: WIDTH and CURVATURE are the paper's 10 and 2 pixels, taken at a face of 256
pixels, our choice (Feng et al., "Wing Loss", CVPR 2018). Which anchors answer for which boxes:
`assignment.py`.
"""

import math

import torch
from torch import Tensor

from data_shards.sampling.placed import UNKNOWN_POINT
from hpc.losses.assignment import STEPS, Matches, shares

WIDTH = 10 / 256  # of the part of the loss that is a logarithm
CURVATURE = 2 / 256


def wing(errors: Tensor, *, width: float = WIDTH, curvature: float = CURVATURE) -> Tensor:
    """Return the wing loss of each error, of any shape (Feng et al. 2018, equation 5).

    Below `width` it is width * ln(1 + |x| / curvature), beyond it |x| less a constant, by which both meet.
    """
    size = errors.abs()
    offset = width - width * math.log(1 + width / curvature)
    return torch.where(size < width, width * torch.log1p(size / curvature), size - offset)


def landmark_loss(
    answers: Tensor,
    found: Matches,
    points: Tensor,
    anchors: Tensor,
    stride: int,
    *,
    size: tuple[int, int],
    images: int,
    unit: int,
) -> Tensor:
    """Return the loss of one scale, a scalar: the mean over units of the means over matches and landmarks.

    answers: [k, 2 p], what the map says of the matches `found`. points: [m, p, 2], x, y of the landmarks of
    all boxes in pixels; an unknown one, and one beyond the image, is not learnt. anchors: [a, 2] in pixels.
    size: rows and columns of the map. images: of the batch. unit: images of a mean.
    """
    boxes, marks = points.shape[:2]
    # matches are listed by step, anchor and box
    wanted = points.float().expand(len(STEPS) * len(anchors), boxes, marks, 2).flatten(0, 1)
    inside = (wanted[..., 0] <= size[1] * stride) & (wanted[..., 1] <= size[0] * stride)
    known = (wanted != UNKNOWN_POINT).any(-1) & (wanted >= 0).all(-1) & inside
    weight = found.weight[:, None] * known  # [k, p]
    corner = torch.stack([found.column, found.row], -1) * stride
    said = answers.unflatten(-1, (marks, 2)) * anchors[found.anchor][:, None] + corner[:, None]
    side = torch.where(found.weight > 0, found.size.prod(-1).sqrt() * stride, 1.0)
    each = wing((said - wanted) / side[:, None, None]).mean(-1)
    share = shares(weight.flatten(), found.image[:, None].expand(-1, marks).flatten(), images, unit)
    return (each.flatten() * share).sum()
