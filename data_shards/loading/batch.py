"""The record that a loader delivers and a task sees: images, labels and places in the order of one rank."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards import counter_rng
from data_shards.loading.requests import DecodeRequest
from data_shards.ragged import Ragged

IMAGE = "image"  # the name of a set's own images


@dataclass
class Batch:
    """A block of the global batch on one rank: n consecutive slots of m images each.

    m is 1 but for the two sides of an unpaired slot (`images` has an entry for each) and a mosaic's own
    members (its images are [n, m, 3, h, w]).
    """

    # "image" [n, 3, h, w], or "a" and "b" of pairs, or a mask. A loader delivers uint8, a permuted view of
    # NHWC memory, on the GPU where DALI decodes there; `prepare` makes it float32 in [-1, 1].
    images: dict[str, Tensor]
    # Each field Tensor [n, ...] int64 or float32, or Ragged: rows [k, ...] of each slot; "repeat" [n] bool
    labels: dict[str, Any]
    # These stay on the host.
    ids: Tensor  # [n, m] int64: sample numbers in their set
    positions: Tensor  # [n] int64: places in the endless stream of slots (clock + slot in the global batch)
    sets: Tensor = field(default_factory=lambda: torch.zeros((1, 1), dtype=torch.int8))  # [n, m], or [1, 1]
    seed: int = 0  # of the run, for `latents`

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "Batch":
        return replace(
            self,
            images={name: images[rows] for name, images in self.images.items()},
            labels={name: column[rows] for name, column in self.labels.items()},
            ids=self.ids[rows],
            positions=self.positions[rows],
            sets=self.sets[rows] if len(self.sets) == len(self) else self.sets,
        )

    @property
    def device(self) -> torch.device:
        return next(iter(self.images.values())).device

    def latents(self, name: str, dim: int) -> Tensor:
        """Return standard normal float32 [n, dim] on the batch's device, counted by (seed, name, position).

        The same slots get the same numbers at any world size, so another `name` is needed for other numbers
        of the same update: one for each phase.
        """
        stream = counter_rng.key(self.seed, "latents", name)
        draws = counter_rng.normal(stream, self.positions.numpy(), dim).astype(np.float32)
        return torch.from_numpy(draws).to(self.device, non_blocking=True)

    def prepare(self, device: torch.device, *, channels_last: bool = True) -> "Batch":
        """Move the batch to `device`; its images become float32 in [-1, 1]."""
        images = {name: _prepared(part, device, channels_last) for name, part in self.images.items()}
        labels = {name: column.to(device, non_blocking=True) for name, column in self.labels.items()}
        return replace(self, images=images, labels=labels)

    @classmethod
    def of_request(cls, request: DecodeRequest, images: Tensor, seed: int = 0) -> "Batch":
        """Join a request with its decoded `images` [n * m, h, w, 3] uint8; `seed`: of the run."""
        slots, members = request.slots, request.slots.ids.shape[1]
        images = images.permute(0, 3, 1, 2)
        if members > 1:
            images = images.unflatten(0, (len(slots.ids), members))
        labels = {name: _label(column) for name, column in request.labels.items()}
        labels["repeat"] = torch.from_numpy(slots.repeat)
        ids, sets = torch.from_numpy(slots.ids), torch.from_numpy(slots.sets)
        return cls({IMAGE: images}, labels, ids, torch.from_numpy(slots.positions), sets, seed)

    @classmethod
    def of_images(cls, images: Tensor) -> "Batch":
        """Make a batch of images that belong to no set, [n, 3, h, w]: those that `predict` is given."""
        rows = torch.arange(images.shape[0])  # an export traces it
        return cls({IMAGE: images}, {}, rows[:, None], rows)


def _prepared(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    moved = images.to(device, non_blocking=True)
    if moved.dtype == torch.uint8:
        moved = moved.float().div_(127.5).sub_(1.0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return moved.flatten(0, -4).contiguous(memory_format=layout).unflatten(0, images.shape[:-3])


def _label(column: np.ndarray | Ragged) -> Tensor | Ragged:
    if isinstance(column, Ragged):
        return column
    return torch.from_numpy(column.astype(np.float32 if column.dtype.kind == "f" else np.int64))
