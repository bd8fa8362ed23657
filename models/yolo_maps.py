"""What the maps of a YOLOv5 mean: boxes, landmarks and scores of every cell and anchor.

A cell's values are x, y, w, h, objectness, a score for each class, and x, y of each landmark. Formulas of the
published architecture (release 6.0): a centre lies within half a cell around its own, a side is at most four
times that of the anchor.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Width and height in pixels of the published anchors, by the number of scales, finest first.
ANCHORS: dict[int, list[list[list[float]]]] = {
    3: [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ],
    4: [
        [[19, 27], [44, 40], [38, 94]],
        [[96, 68], [86, 152], [180, 137]],
        [[140, 301], [303, 264], [238, 542]],
        [[436, 615], [739, 380], [925, 792]],
    ],
}


class Decoded(NamedTuple):
    """All candidates of a batch, k = the sum over scales of anchors x cells."""

    boxes: Tensor  # [n, k, 4]: x1, y1, x2, y2 in pixels
    objectness: Tensor  # [n, k] in [0, 1]
    classes: Tensor  # [n, k, classes] in [0, 1], given that there is an object
    points: Tensor  # [n, k, points, 2]: x, y in pixels


def values_of(classes: int, points: int) -> int:
    """Return how many values an anchor has in a cell."""
    return 5 + classes + 2 * points


def cells(h: int, w: int, device: torch.device) -> Tensor:
    """Return the column and row of each cell, [h, w, 2]."""
    rows, columns = torch.arange(h, device=device), torch.arange(w, device=device)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)


def centres_and_sizes(values: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the offset of a centre from its cell's corner, in cells, and the size in the anchors' unit.

    values: [..., 4 or more] before the sigmoid; anchors: [..., 2]. An offset lies in (-0.5, 1.5).
    """
    squashed = values[..., :4].sigmoid()
    return 2 * squashed[..., :2] - 0.5, (2 * squashed[..., 2:4]) ** 2 * anchors


def decode(maps: Sequence[Tensor], anchors: Tensor, strides: Sequence[int], *, classes: int) -> Decoded:
    """Return what the maps [n, anchors, h, w, values] of an image say, in pixels of the image.

    anchors: [scales, anchors, 2] in pixels; landmarks are stated in the anchor's size from the cell's corner.
    """
    found: list[list[Tensor]] = [[], [], [], []]
    for values, sizes, stride in zip(maps, anchors, strides, strict=True):
        n, count, h, w, _ = values.shape
        values, corner = values.float(), cells(h, w, values.device)
        anchor = sizes.view(1, count, 1, 1, 2)
        centre, size = centres_and_sizes(values, anchor)
        centre = (centre + corner) * stride
        points = values[..., 5 + classes :].unflatten(-1, (-1, 2)) if values.shape[-1] > 5 + classes else None
        where = (
            values.new_zeros(n, count, h, w, 0, 2)
            if points is None
            else points * anchor[..., None, :] + (corner * stride)[:, :, None]
        )
        parts = (
            torch.cat([centre - size / 2, centre + size / 2], -1),
            values[..., 4].sigmoid(),
            values[..., 5 : 5 + classes].sigmoid(),
            where,
        )
        for list_, part in zip(found, parts, strict=True):
            list_.append(part.flatten(1, 3))
    return Decoded(*(torch.cat(each, 1) for each in found))
