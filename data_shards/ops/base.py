"""Op: what the device does to a decoded batch (`data_shards/batch.py`), and the way ops are run.

An op is a pure function of a batch and of noise that is counted by position in the stream, so any number of
ranks makes the same images. It never drops rows of a label, since their number would have to be read from the
device: a box that is not visible any more becomes GONE, four zeros, and a loss skips boxes without area.
Boxes and points are in pixel edges (x0, y0, x1, y1) of the image as it is, see `sampling/placed.py`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from data_shards import counter_rng
from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ragged import Ragged

GONE = 0.0  # each edge of a box that is not visible any more
LEAST_SHARE = 0.1  # of a box's area that must be left of it


class Op(ABC):
    """One change of a batch. `unit`: slots that must stay together; `draws`: random numbers of a slot."""

    unit: int = 1
    draws: int = 0
    members: int = 1  # images that each slot must have; the changed batch has one

    @abstractmethod
    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        """The changed batch. noise: float64 [n, draws] in [0, 1), on the host; row i belongs to slot i."""


def run_ops(ops: Sequence[Op], batch: Batch) -> Batch:
    """Apply ops in order to a prepared batch, with noise counted by the seed and the positions it states.

    Raises UserError where the slots are not whole, aligned units of an op, whose partners would then be other
    ones, or have not as many images as it needs.
    """
    seen: dict[str, int] = {}
    positions = batch.positions.numpy()
    for op in ops:
        name = type(op).__name__.lower()
        nth = seen[name] = seen.get(name, -1) + 1
        _check_units(op, name, positions)
        _check_members(op, name, batch)
        noise = counter_rng.uniform(counter_rng.key(batch.seed, "op", name, nth), positions, op.draws)
        batch = op(batch, noise)
    return batch


def common_unit(ops: Sequence[Op], unit: int = 1) -> int:
    """Slots that must stay together for all ops and for an order of `unit`: the least common multiple."""
    return math.lcm(unit, *(op.unit for op in ops))


def _check_units(op: Op, name: str, positions: np.ndarray) -> None:
    if len(positions) % op.unit:
        raise UserError(
            f"{len(positions)} slots are not whole units of the {op.unit} that {name} needs: use a batch and "
            f"a micro_batch that give every rank a multiple of {op.unit}"
        )
    units = positions.reshape(-1, op.unit)
    if (units[:, :1] % op.unit != 0).any() or (np.diff(units, axis=1) != 1).any():
        raise UserError(f"the slots of a unit of {name} do not start at a multiple of {op.unit}")


def _check_members(op: Op, name: str, batch: Batch) -> None:
    shape = next(iter(batch.images.values())).shape
    if (members := shape[1] if len(shape) == 5 else 1) != op.members:
        first = " or a mosaic of them before it" if op.members == 1 else ""
        raise UserError(
            f"{name} takes {op.members} images a slot, the batch has {members}: use "
            f"data.members={op.members}{first}"
        )


def partners(noise: np.ndarray, unit: int) -> np.ndarray:
    """int64 [n, k]: for each slot, k others of its aligned unit, all different.

    Each unit is rotated by k distinct offsets, which the noise [n, k] of its first slot draws: every image of
    the unit is a partner exactly k times.
    """
    count = noise.shape[1]
    if count >= unit:
        raise ValueError(f"a unit of {unit} slots has no {count} partners for each")
    first = noise[::unit]
    offsets, rows = np.tile(np.arange(1, unit), (len(first), 1)), np.arange(len(first))
    for nth in range(count):
        chosen = nth + np.floor(first[:, nth] * (unit - 1 - nth)).astype(np.int64)
        offsets[rows, nth], offsets[rows, chosen] = offsets[rows, chosen], offsets[rows, nth].copy()
    place = np.arange(unit)[None, :, None]
    others = (place + offsets[:, None, :count]) % unit + np.arange(len(first))[:, None, None] * unit
    return others.reshape(-1, count)


def upload(values: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A host array on the device, without waiting for it."""
    tensor = torch.from_numpy(np.array(values)).to(dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def pick(images: Tensor, rows: np.ndarray) -> Tensor:
    """The images of other slots: `images[rows]`, for row numbers on the host."""
    return images.index_select(0, upload(rows, images.device, torch.int64))


def choose(chosen: np.ndarray, changed: Tensor, images: Tensor) -> Tensor:
    """`changed` for the slots that are chosen (bool [n]), `images` for the others."""
    if chosen.all():
        return changed
    return torch.where(upload(chosen, images.device, torch.bool)[:, None, None, None], changed, images)


def change_rows(images: Tensor, chosen: np.ndarray, change: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """Images of which those chosen (bool [n]) are `change(images[rows], rows)`; only these are computed."""
    rows = np.flatnonzero(chosen)
    if len(rows) == len(images):
        return change(images, rows)
    if not len(rows):
        return images
    index = upload(rows, images.device, torch.int64)
    return images.index_copy(0, index, change(images.index_select(0, index), rows))


def each_row(label: Tensor | Ragged, change: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor | Ragged:
    """A label with `change(rows, owners)` for its rows; owners: int64 [m], the slot of each row."""
    if isinstance(label, Ragged):
        return Ragged(change(label.rows, label.owners), label.starts)
    return change(label, np.arange(len(label)))


def join(label: Ragged, table: np.ndarray) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """Rows of several slots for each slot: (rows, slot [m] that each came to, column [m] of its source).

    table: int64 [n, k], the slots whose rows slot i takes, in this order; -1: none.
    """
    parts = label.take(table.reshape(-1))
    slot, column = np.divmod(parts.owners, table.shape[1])
    return Ragged(parts.rows, parts.starts[:: table.shape[1]]), slot, column


def unsuited(batch: Batch, op: str, name: str, *, instead: str) -> UserError:
    """The error to raise where an op has no meaning for an image or label; `instead`: what to do."""
    return UserError(f"{op} has no meaning for `{name}`, {batch.kinds[name]} of a whole image: {instead}")
