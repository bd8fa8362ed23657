"""The record that a loader delivers, ops change and a task sees: images, labels and places of some slots.

`loading/batch.py` makes it of what was decoded. Ops: `ops/base.py`. Labels of which a sample has any number:
`ragged.py`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards import counter_noise, counter_rng
from data_shards.ragged import Ragged
from data_shards.sampling.placed import Placed

IMAGE = "image"  # the name of a set's own images
PAIR = ("a", "b")  # the names of the images of pairs: of two domains, or the two halves of an image


@dataclass
class Batch:
    """A block of the global batch on one rank: n consecutive slots of m images each.

    m is 1 but for the two sides of an unpaired slot (`images` has an entry for each) and a mosaic's own
    members (its images are [n, m, 3, h, w]).
    """

    # "image" [n, 3, h, w], or "a" and "b" of pairs, and what the set has beside its images: further images
    # by their names, masks [n, 1, h, w] uint8, whose 255 is unknown. A loader delivers uint8, a permuted view
    # of NHWC memory, on the GPU where DALI decodes there; `prepare` makes images float32 in [-1, 1].
    images: dict[str, Tensor]
    # Each field Tensor [n, ...] int64 or float32, or Ragged: rows [k, ...] of each slot; "repeat" [n] bool.
    # Those of pairs are "a.<field>" and "b.<field>". Boxes (x0, y0, x1, y1; four zeros: not visible) and
    # points (x, y; -1, -1: unknown) are in pixel edges of the image as it is, see `sampling/placed.py`.
    labels: dict[str, Any]
    # These stay on the host.
    ids: Tensor  # [n, m] int64: sample numbers in their set
    positions: Tensor  # [n] int64: places in the endless stream of slots (clock + slot in the global batch)
    sets: Tensor = field(default_factory=lambda: torch.zeros((1, 1), dtype=torch.int8))  # [n, m], or [1, 1]
    seed: int = 0  # of the run, for `latents`
    # Name of an image or label -> its kind as in the set's schema; ops leave names without a kind alone.
    kinds: Mapping[str, str] = field(default_factory=dict)
    # Of the images, slot by slot, those of a slot side by side, while they are as the decoder made them.
    placed: Placed | None = None
    # Where a batch without images is, one of latents alone: `prepare` says it.
    on: torch.device = field(default_factory=lambda: torch.device("cpu"))

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
            placed=self._placed_of(rows),
        )

    def _placed_of(self, rows: slice) -> Placed | None:
        if self.placed is None or not len(self):
            return self.placed
        low, high, _ = rows.indices(len(self))
        each = len(self.placed) // len(self)
        return self.placed[low * each : max(low, high) * each]

    @property
    def device(self) -> torch.device:
        return next(iter(self.images.values())).device if self.images else self.on

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width = next(iter(self.images.values())).shape[-2:]
        return height, width

    def named(self, *kinds: str) -> list[str]:
        """Names of the images and labels of these kinds."""
        return [name for name in (*self.images, *self.labels) if self.kinds.get(name) in kinds]

    def latents(self, name: str, dim: int) -> Tensor:
        """Return standard normal float32 [n, dim] on the batch's device, counted by (seed, name, position).

        The same slots get the same numbers at any world size, so another `name` is needed for other numbers
        of the same update: one for each phase.
        """
        stream = counter_rng.key(self.seed, "latents", name)
        draws = counter_rng.normal(stream, self.positions.numpy(), dim).astype(np.float32)
        return torch.from_numpy(draws).to(self.device, non_blocking=True)

    def noise(self, name: str, dim: int) -> Tensor:
        """Return standard normal float32 [n, dim], counted as `latents` are, but drawn on the batch's device.

        For many numbers of each image, as the noise of every pixel; they are not those of `latents`.
        """
        stream = counter_rng.key(self.seed, "noise", name)
        seeds = counter_rng.derive(stream, self.positions.numpy()).view(np.int64)
        return counter_noise.normal(torch.from_numpy(seeds).to(self.device, non_blocking=True), dim)

    def prepare(self, device: torch.device, *, channels_last: bool = True) -> "Batch":
        """Move the batch to `device`; its images become float32 in [-1, 1], masks stay as they are.

        To a GPU it is copied by a stream of its own, while the GPU is still busy with the update before.
        """
        with _copying(device) as copied:
            moved = {name: copied(part) for name, part in self.images.items()}
            labels = {name: copied(column) for name, column in self.labels.items()}
        images = {
            name: part if self.kinds.get(name) == "mask" else _prepared(part, channels_last)
            for name, part in moved.items()
        }
        return replace(self, images=images, labels=labels, on=device)

    @classmethod
    def of_positions(cls, positions: Tensor, seed: int = 0) -> "Batch":
        """Make a batch without images for positions int64 [n], which are its ids: what `latents` is for."""
        return cls({}, {}, positions[:, None], positions, seed=seed)

    @classmethod
    def of_images(cls, images: Tensor, placed: Placed | None = None) -> "Batch":
        """Make a batch of images that belong to no set, [n, 3, h, w]: those that `predict` is given.

        placed: where they lie in their files, so that a task can say where in a file its boxes are.
        """
        rows = torch.arange(images.shape[0])  # an export traces it
        return cls({IMAGE: images}, {}, rows[:, None], rows, placed=placed)


def pixels_of(images: Tensor) -> np.ndarray:
    """Return images [n, 3, h, w] in [-1, 1] as uint8 [n, h, w, 3]; what is beyond is cut, NaN is grey."""
    scaled = (images.detach().float().nan_to_num() + 1.0) * 127.5
    return scaled.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _prepared(images: Tensor, channels_last: bool) -> Tensor:
    moved = images
    if moved.dtype == torch.uint8:
        moved = moved.float().div_(127.5).sub_(1.0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return moved.flatten(0, -4).contiguous(memory_format=layout).unflatten(0, images.shape[:-3])


@contextlib.contextmanager
def _copying(device: torch.device) -> Iterator[Callable[[Any], Any]]:
    """Give a function that moves a Tensor or a Ragged to `device`; what follows the block waits for it."""
    if device.type != "cuda":
        yield lambda column: column.to(device)
        return
    stream, current = _copy_stream(device), torch.cuda.current_stream(device)
    moved: list[Tensor] = []

    def copied(column: Any) -> Any:
        there = column.to(device, non_blocking=True)
        moved.append(there.rows if isinstance(there, Ragged) else there)
        return there

    with torch.cuda.stream(stream):
        yield copied
    current.wait_stream(stream)
    for tensor in moved:  # its memory belongs to the copying stream, and is used by this one
        tensor.record_stream(current)


@lru_cache
def _copy_stream(device: torch.device) -> "torch.cuda.Stream":
    return torch.cuda.Stream(device)
