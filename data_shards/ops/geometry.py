"""Moving pixels, boxes and points by affine maps: what the geometric ops share.

Matrices are [n, 2, 3] and carry pixel edges (x, y). Grids are built by broadcasting: `F.affine_grid` takes
over half of the time of a warp.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_shards.ops.base import GONE, LEAST_SHARE, upload
from data_shards.sampling.placed import UNKNOWN_POINT

LEAST_SIDE = 2.0  # pixels that each side of it must have


def warp(images: Tensor, to_source: np.ndarray) -> Tensor:
    """Images [n, c, h, w] whose pixel at (x, y) is the source's at `to_source` (x, y), 0 outside of it.

    Bilinear for float images, nearest for uint8 masks (255 outside). The values stay within those of the
    source.
    """
    height, width = images.shape[-2:]
    # to the coordinates of grid_sample, -1..1 between the outer edges
    matrix = to_source * np.array([2 / width, 2 / height])[None, :, None]
    matrix[:, :, 2] -= 1
    m = upload(matrix, images.device)[:, :, :, None, None]
    x = (torch.arange(width, device=images.device) + 0.5)[None, None, None, :]
    y = (torch.arange(height, device=images.device) + 0.5)[None, None, :, None]
    grid = m[:, :, 0] * x + m[:, :, 1] * y + m[:, :, 2]  # [n, 2, h, w]
    return sample(images, grid.permute(0, 2, 3, 1))


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Images at the points of a grid [n, h, w, 2] as `grid_sample` has it; kinds and filling as of `warp`."""
    if images.dtype == torch.uint8:
        known = images.float() - 255  # so that the zeros around it are 255
        out = functional.grid_sample(known, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return (out + 255).to(torch.uint8)
    out = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return out.clamp_(-1, 1)  # bilinear weights are rounded


def move_points(points: Tensor, matrices: np.ndarray) -> Tensor:
    """Points [m, 2] or [m, k, 2] moved by matrices [m, 2, 3]; unknown ones stay. They may leave the image."""
    flat = points.reshape(len(points), -1, 2)
    moved = _apply(flat, matrices)
    unknown = (flat == UNKNOWN_POINT).all(dim=-1, keepdim=True)
    return torch.where(unknown, flat, moved).reshape(points.shape)


def move_boxes(boxes: Tensor, matrices: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Boxes [m, 4] moved by matrices [m, 2, 3] and clipped to the image; GONE where not visible.

    size: height, width of the image. A turned box becomes the upright one around its corners.
    """
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = _apply(corners, matrices)
    around = torch.cat([moved.amin(dim=1), moved.amax(dim=1)], dim=1)
    bounds = np.broadcast_to(np.array([0, 0, size[1], size[0]]), (len(boxes), 4))
    return clip_boxes(around, bounds, absent=boxes)


def clip_boxes(boxes: Tensor, bounds: np.ndarray, *, absent: Tensor | None = None) -> Tensor:
    """Boxes [m, 4] clipped to `bounds` [m, 4]; GONE where too little is left (LEAST_SHARE, LEAST_SIDE).

    absent: boxes [m, 4] of which those without area were GONE before.
    """
    edges = upload(bounds, boxes.device)
    clipped = torch.maximum(torch.minimum(boxes, edges[:, [2, 3, 2, 3]]), edges[:, [0, 1, 0, 1]])
    return keep_visible(clipped, boxes, absent=absent)


def keep_visible(left: Tensor, before: Tensor, *, absent: Tensor | None = None) -> Tensor:
    """What is left of boxes [m, 4], GONE where it is too little of those before; `absent` as above."""
    sides, whole = left[:, 2:] - left[:, :2], before[:, 2:] - before[:, :2]
    visible = (sides >= LEAST_SIDE).all(dim=1) & (sides.prod(dim=1) >= LEAST_SHARE * whole.prod(dim=1))
    if absent is not None:
        visible &= (absent[:, 2:] > absent[:, :2]).all(dim=1)
    return torch.where(visible[:, None], left, torch.full_like(left, GONE))


def _apply(points: Tensor, matrices: np.ndarray) -> Tensor:
    m = upload(matrices, points.device)[:, None]  # [m, 1, 2, 3]
    return m[..., 0] * points[..., :1] + m[..., 1] * points[..., 1:] + m[..., 2]
