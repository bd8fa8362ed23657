"""The record that a loader delivers and a task sees: images, labels and places in the order of one rank."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.requests import DecodeRequest


@dataclass
class Batch:
    """A block of the global batch on one rank: n consecutive slots.

    With m > 1 members a slot (2 of an A/B pair) images, labels and ids are [n, m, ...].
    """

    # [n, 3, h, w]. A loader delivers uint8, a permuted view of NHWC memory, on the GPU where DALI decodes
    # there; `prepare` makes it float32 in [-1, 1].
    images: Tensor
    labels: dict[str, Tensor]  # each field [n] int64 or float32; "repeat" [n] bool
    ids: Tensor  # [n] int64: sample numbers in the set
    positions: Tensor  # [n] int64: places in the endless stream of slots (clock + slot in the global batch)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "Batch":
        labels = {name: column[rows] for name, column in self.labels.items()}
        return Batch(self.images[rows], labels, self.ids[rows], self.positions[rows])

    def prepare(self, device: torch.device, *, channels_last: bool = True) -> "Batch":
        """Move the batch to `device`; its images become float32 in [-1, 1]."""
        images = self.images.to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = images.float().div_(127.5).sub_(1.0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        flat = images.flatten(0, -4).contiguous(memory_format=layout)
        labels = {name: column.to(device, non_blocking=True) for name, column in self.labels.items()}
        return replace(self, images=flat.unflatten(0, images.shape[:-3]), labels=labels)

    @classmethod
    def of_request(cls, request: DecodeRequest, images: Tensor) -> "Batch":
        """Join a request with its decoded `images` [n * m, h, w, 3] uint8."""
        slots, members = request.slots, request.slots.ids.shape[1]
        images = images.permute(0, 3, 1, 2)
        ids = torch.from_numpy(slots.ids)
        if members > 1:
            images = images.unflatten(0, (len(ids), members))
        labels = {name: _label(column) for name, column in request.labels.items()}
        labels["repeat"] = torch.from_numpy(slots.repeat)
        return cls(images, labels, ids[:, 0] if members == 1 else ids, torch.from_numpy(slots.positions))


def _label(column: np.ndarray) -> Tensor:
    return torch.from_numpy(column.astype(np.float32 if column.dtype.kind == "f" else np.int64))
