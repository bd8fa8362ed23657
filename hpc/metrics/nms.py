"""Non-maximum suppression in pure torch, exact, of all images of a batch at once; and the soft one.

Greedy: the best box that is left stays, all that it covers by more than `threshold` go. Equal scores keep
their order. The candidates of an image are taken in blocks by falling score: those that kept boxes cover go
first, what is left in a block is solved by repeating `a box stays if no staying one before it covers it`. Its
only fixed point is what the greedy loop finds, and one round settles at least one box, mostly nearly all.
"""

import torch
from torch import Tensor

from data_shards.ragged import Ragged
from hpc.metrics.boxes import iou

BLOCK = 256  # candidates of an image that are compared with each other at a time
LIMIT = 300  # boxes of an image


def nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor | None = None,
    *,
    threshold: float,
    agnostic: bool = False,
    limit: int = LIMIT,
    owners: Tensor | None = None,
) -> Tensor:
    """Return which rows stay, int64 [k]: by image, then by falling score; of equal scores the first first.

    boxes: [m, 4] x0, y0, x1, y1. scores: [m], finite. classes: [m]; boxes of unequal classes leave each other
    alone unless `agnostic`. threshold: the intersection over union in [0, 1] beyond which the lower score
    goes. limit: rows of an image at most. owners: int64 [m], the image of each row (None = all of one).
    """
    if not 0 <= threshold <= 1 or limit < 1:
        raise ValueError(f"threshold={threshold} is not in [0, 1], or limit={limit} is not above 0")
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    table = _by_image(scores.detach(), owners)
    groups = None if agnostic or classes is None else classes
    chosen = torch.zeros_like(table, dtype=torch.bool)
    kept = _Kept(len(table), limit, boxes)
    for start in range(0, table.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        active = ((table[:, start] >= 0) & (kept.count < limit)).nonzero()[:, 0]
        if not len(active):
            break
        rows = table[active, part]
        there = rows.clamp(min=0)
        block, group = boxes[there], None if groups is None else groups[there]
        free = (rows >= 0) & ~kept.cover(active, block, group, threshold)
        chosen[active, part] = kept.add(active, block, group, _solved(block, group, free, threshold))
    return table[chosen]


def suppressed(
    candidates: Ragged,
    *,
    threshold: float,
    agnostic: bool = False,
    limit: int = LIMIT,
    sigma: float | None = None,
    floor: float = 1e-3,
) -> Ragged:
    """Return the detections of each image that stay, by falling score; rows are x0, y0, x1, y1, score, class.

    sigma: of the soft suppression, which lowers scores and ignores `threshold`; what falls below `floor`
    goes (None = the greedy one).
    """
    rows = candidates.rows
    owners = torch.from_numpy(candidates.owners).to(rows.device)
    boxes, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
    if sigma is None:
        index = nms(
            boxes, scores, classes, threshold=threshold, agnostic=agnostic, limit=limit, owners=owners
        )
        found = rows[index]
    else:
        index, scores = soft_nms(
            boxes, scores, classes, sigma=sigma, floor=floor, agnostic=agnostic, limit=limit, owners=owners
        )
        found = torch.cat([rows[index, :4], scores[:, None], rows[index, 5:]], 1)
    counts = torch.bincount(owners[index], minlength=len(candidates.flat)).cpu()
    return Ragged(found, torch.nn.functional.pad(counts.cumsum(0), (1, 0)).numpy())


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor | None = None,
    *,
    sigma: float = 0.5,
    floor: float = 1e-3,
    agnostic: bool = False,
    limit: int = LIMIT,
    owners: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return which rows stay, int64 [k], and their lowered scores [k]; order and arguments as of `nms`.

    The best box lowers each other score by exp(-iou^2 / sigma) (Bodla et al. 2017, equation 3), then the next
    best is taken; boxes whose score is not above `floor` go.
    """
    if sigma <= 0 or limit < 1:
        raise ValueError(f"sigma={sigma} or limit={limit} is not above 0")
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    table = _by_image(scores.detach(), owners)
    there = table.clamp(min=0)
    block = boxes[there]
    group = None if agnostic or classes is None else classes[there]
    left = torch.where(table >= 0, scores.detach()[there], -torch.inf).to(block.dtype)
    images = torch.arange(len(table), device=boxes.device)
    rows, lowered = [], []
    for _ in range(min(limit, table.shape[1])):
        best, at = left.max(1).values, left.argmax(1)  # of equal scores the first
        good = best > floor
        if not good.any():
            break
        rows.append(torch.where(good, table[images, at], -1))
        lowered.append(best)
        covered = iou(block[images, at][:, None], block)[:, 0]
        if group is not None:
            covered = torch.where(group == group[images, at][:, None], covered, 0.0)
        left = left * torch.exp(-(covered**2) / sigma)
        left[images, at] = -torch.inf
    if not rows:
        return table.new_zeros(0), block.new_zeros(0)
    index, values = torch.stack(rows, 1), torch.stack(lowered, 1)
    return index[index >= 0], values[index >= 0]


def _by_image(scores: Tensor, owners: Tensor | None) -> Tensor:
    """Return the rows of each image by falling score: int64 [n, width], filled up with -1."""
    order = scores.argsort(descending=True, stable=True)
    if not len(order):
        return order.new_zeros(0, 0)
    if owners is None:
        return order[None]
    order = order[owners[order].argsort(stable=True)]
    images = owners[order]
    counts = torch.bincount(images)
    table = order.new_full((len(counts), int(counts.max())), -1)
    table[images, torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[images]] = order
    return table


def _same(one: Tensor | None, other: Tensor | None) -> Tensor | bool:
    """Whether each pair is of one class: [..., m], [..., k] -> [..., m, k]; True if classes do not count."""
    return True if one is None or other is None else one[..., :, None] == other[..., None, :]


def _solved(block: Tensor, group: Tensor | None, free: Tensor, threshold: float) -> Tensor:
    """Return which boxes of each block [a, b, 4] the greedy loop keeps among the `free` ones, bool [a, b]."""
    hits = ((iou(block, block) > threshold) & _same(group, group)).triu(1)  # [a, earlier, later]
    keep = free
    while True:
        again = free & ~(hits & keep[:, :, None]).any(1)
        if torch.equal(again, keep):
            return keep
        keep = again


class _Kept:
    """The boxes that stay of each image so far, at most `limit`; boxes without area fill the tables up."""

    def __init__(self, images: int, limit: int, boxes: Tensor) -> None:
        self.limit = limit
        self.boxes = boxes.new_zeros(images, 0, 4)
        self.groups: Tensor | None = None
        self.count = torch.zeros(images, dtype=torch.int64, device=boxes.device)

    def cover(self, images: Tensor, block: Tensor, group: Tensor | None, threshold: float) -> Tensor:
        """Return which boxes [a, b, 4] of `images` [a] a kept one covers, bool [a, b]."""
        groups = None if self.groups is None else self.groups[images]
        return ((iou(self.boxes[images], block) > threshold) & _same(groups, group)).any(1)

    def add(self, images: Tensor, block: Tensor, group: Tensor | None, keep: Tensor) -> Tensor:
        """Add the boxes to `keep` [a, b], which come by falling score; return those within the limit."""
        places = self.count[images][:, None] + keep.cumsum(1) - 1
        keep = keep & (places < self.limit)
        self.count[images] += keep.sum(1)
        short = int(self.count.max()) - self.boxes.shape[1]
        if short > 0:
            self.boxes = torch.nn.functional.pad(self.boxes, (0, 0, 0, short))
            if group is not None:
                old = self.groups if self.groups is not None else group.new_zeros(len(self.boxes), 0)
                self.groups = torch.nn.functional.pad(old, (0, short))
        row, column = keep.nonzero(as_tuple=True)
        at = (images[row], places[row, column])
        self.boxes[at] = block[row, column]
        if self.groups is not None and group is not None:
            self.groups[at] = group[row, column]
        return keep
