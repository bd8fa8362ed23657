"""Which anchors of which cells answer for which boxes: YOLOv5's matching by the ratio of sides.

A box is given to each anchor that no side exceeds `RATIO` times, in the cell that holds its centre and in the
two neighbours that are nearest to it (Jocher et al., release 6.0, 2021). All candidates are kept and those
that do not count have a weight of 0, so that no size is read from the device. What is learnt of them is in
`detection.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

RATIO = 4.0  # published threshold of the sides
# The cell of the centre and its neighbours, as x, y: left, upper, right, lower.
STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))


class Targets(NamedTuple):
    """The boxes of a batch, in pixels of the images as the network sees them."""

    boxes: Tensor  # [m, 4] x0, y0, x1, y1; those without area are skipped
    classes: Tensor  # [m] int64; below 0: not known, no class is learnt
    ignored: Tensor  # [m] bool: neither a target nor a mistake
    owners: Tensor  # [m] int64: the image of each box
    points: Tensor | None = None  # [m, p, 2] x, y of landmarks; -1, -1: not known (None = none are learnt)


class Matches(NamedTuple):
    """All candidates of one scale, k = 5 x anchors x m, by step, anchor and box."""

    image: Tensor  # [k] int64
    anchor: Tensor  # [k] int64
    row: Tensor  # [k] int64, within the map
    column: Tensor  # [k] int64
    weight: Tensor  # [k] float32: 1 where the candidate is a target, else 0
    ignored: Tensor  # [k] float32: 1 where it would be one, of an ignored box
    centre: Tensor  # [k, 2]: x, y of the box from the cell's corner, in cells
    size: Tensor  # [k, 2]: width, height of the box, in cells
    classes: Tensor  # [k] int64


def fits(sides: Tensor, anchors: Tensor, *, ratio: float = RATIO) -> Tensor:
    """Return which anchors [a, 2] suit which sides [m, 2]: bool [a, m]; sides of 0 suit none."""
    by = sides[None] / anchors[:, None]
    return torch.maximum(by, 1 / by.clamp(min=1e-9)).amax(-1) < ratio


def match(
    targets: Targets, anchors: Tensor, shape: tuple[int, int], stride: int, *, ratio: float = RATIO
) -> Matches:
    """Match boxes with the anchors of one scale.

    anchors: [a, 2], width and height in pixels. shape: rows and columns of the map.
    """
    boxes = targets.boxes.float() / stride
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    room = centre.new_tensor([shape[1], shape[0]])
    steps = torch.tensor(STEPS, device=boxes.device)
    cell = centre.floor()
    beside = _nearest(centre, room)  # [5, m]
    suits = fits(sides, anchors / stride, ratio=ratio) & (sides > 0).all(1)
    taken = (beside[:, None] & suits[None]).float()  # [5, a, m]
    place = (cell[None] + steps[:, None]).clamp(min=0)  # [5, m, 2]
    place = torch.minimum(place, room - 1)
    shape_of = taken.shape

    def spread(values: Tensor) -> Tensor:
        """[5 or 1, m, ...] -> [k, ...]"""
        return values[:, None].expand(*shape_of, *values.shape[2:]).flatten(0, 2)

    number = torch.arange(len(anchors), device=boxes.device)[None, :, None].expand(shape_of).flatten()
    at = spread(place).long()
    ignored = spread(targets.ignored.float()[None])
    return Matches(
        image=spread(targets.owners[None]),
        anchor=number,
        row=at[:, 1],
        column=at[:, 0],
        weight=taken.flatten() * (1 - ignored),
        ignored=taken.flatten() * ignored,
        centre=spread(centre[None] - place),
        size=spread(sides[None]),
        classes=spread(targets.classes[None]),
    )


def shares(weight: Tensor, image: Tensor, images: int, unit: int) -> Tensor:
    """Return what each of some terms [k] counts in the mean over units of the means over their terms, [k].

    weight: [k], 0 for terms that do not count. image: [k], of `images`. unit: images of a mean.
    """
    place = image // unit
    counts = torch.zeros(images // unit, device=place.device).index_add_(0, place, weight)
    return weight / counts.clamp(min=1)[place] / len(counts)


def _nearest(centre: Tensor, room: Tensor) -> Tensor:
    """Return whether each step leads to a cell that answers for a centre [m, 2]: bool [5, m]."""
    share = centre - centre.floor()
    low = (share < 0.5) & (centre > 1)
    high = (share > 0.5) & (centre < room - 1)
    within = ((centre >= 0) & (centre < room)).all(1)
    columns = [torch.ones_like(within), low[:, 0], low[:, 1], high[:, 0], high[:, 1]]
    return torch.stack(columns) & within


def covered_cells(targets: Targets, images: int, shape: tuple[int, int], stride: int) -> Tensor:
    """Return which cells have their centre in an ignored box: bool [images, rows, columns].

    By differences at the corners of the boxes and their running sums, in integers: exact in any order.
    """
    rows, columns = shape
    # cells whose centre, (i + 0.5) * stride, is in [low, high): i from ceil(low / stride - 0.5) on
    edges = torch.ceil(targets.boxes.float() / stride - 0.5)
    x0, x1 = edges[:, 0].clamp(0, columns).long(), edges[:, 2].clamp(0, columns).long()
    y0, y1 = edges[:, 1].clamp(0, rows).long(), edges[:, 3].clamp(0, rows).long()
    one = (targets.ignored & (x1 > x0) & (y1 > y0)).int()
    counts = torch.zeros(images, rows + 1, columns + 1, dtype=torch.int32, device=one.device)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        counts.index_put_((targets.owners, y, x), sign * one, accumulate=True)
    return counts.cumsum(1).cumsum(2)[:, :rows, :columns] > 0
