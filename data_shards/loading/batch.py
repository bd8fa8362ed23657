"""Joins a request and what was decoded for it into a `Batch`: names, axes of members, labels as tensors."""

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import IMAGE, PAIR, Batch
from data_shards.loading.decode_request import DecodeRequest
from data_shards.loading.labels import as_label
from data_shards.ragged import Ragged

KNOWN = ".known"  # ends the name of the label, bool [n], that says whether a sample has the image or mask


def join(request: DecodeRequest, decoded: dict[str, Tensor], seed: int = 0) -> Batch:
    """Make the batch of a request.

    decoded: the images and each piece, uint8 [parts, n * members, h, w, channels]; parts: 2 of pairs, else 1.
    seed: of the run.
    """
    slots = request.slots
    images: dict[str, Tensor] = {}
    labels = {name: _label(column) for name, column in request.labels.items()}
    for name, pixels in decoded.items():
        planes = pixels.permute(0, 1, 4, 2, 3)
        if not request.pairs and slots.ids.shape[1] > 1:
            planes = planes.unflatten(1, slots.ids.shape)
        for part, plane in zip(PAIR if request.pairs else ("",), planes, strict=True):
            if name == IMAGE:
                images[part or IMAGE] = plane
            elif (full := f"{part}.{name}" if part else name) in request.kinds:
                images[full] = plane
                labels[full + KNOWN] = torch.from_numpy(request.known(name, part))
    labels["repeat"] = torch.from_numpy(slots.repeat)
    ids, sets = torch.from_numpy(slots.ids), torch.from_numpy(slots.sets)
    positions = torch.from_numpy(slots.positions)
    return Batch(images, labels, ids, positions, sets, seed, request.kinds, request.plan.placed)


def _label(column: np.ndarray | Ragged) -> Tensor | Ragged:
    return column if isinstance(column, Ragged) else torch.from_numpy(as_label(column))
