"""Targets of a detector from plain lists."""

import torch

from hpc.losses.assignment import Targets


def targets(boxes, *, ignored=None, owners=None, classes=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    count = len(boxes)
    return Targets(
        boxes,
        torch.zeros(count, dtype=torch.int64) if classes is None else torch.tensor(classes),
        torch.zeros(count, dtype=torch.bool) if ignored is None else torch.tensor(ignored),
        torch.zeros(count, dtype=torch.int64) if owners is None else torch.tensor(owners),
    )
