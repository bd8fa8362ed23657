"""The labels of a request: looked up in the index, boxes and points carried into the target's pixels.

Boxes are stored as x, y, width, height and delivered as x0, y0, x1, y1, clipped to what is shown of the
image; one of which too little is left, or that is unknown, becomes GONE, four zeros. Points are not clipped;
unknown ones are -1, -1. How they are carried: `sampling/placed.py`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from data_shards.ops.base import GONE, LEAST_SHARE
from data_shards.ragged import Ragged
from data_shards.sampling.placed import UNKNOWN_POINT, Placed
from data_shards.shard_format.schema import Field

_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])")
MOVED = ("boxes", "points")  # kinds of labels that follow the pixels


def field_of(shards: Any, name: str) -> Field | None:
    """The field of that name of an opened set, label or piece (None = it has none)."""
    schema = shards.schema
    field: Field | None = {**schema.columns, **schema.ragged, **schema.pieces}.get(name)
    return field


def gather(column: Callable[[int], np.ndarray], ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Rows `ids` of the columns of the sets `numbers`, arrays of one shape: of that shape, then the row's.

    column: number of a set -> its column [samples, ...].
    """
    if not numbers.any():  # all of the first set, nearly always
        return np.asarray(column(0)[ids])
    used = np.unique(numbers).tolist()
    parts = [(numbers == number, np.asarray(column(number)[ids[numbers == number]])) for number in used]
    out = np.empty(ids.shape + parts[0][1].shape[1:], np.result_type(*(values for _, values in parts)))
    for which, values in parts:
        out[which] = values
    return out


def gather_ragged(sets: Sequence[Any], name: str, ids: np.ndarray, numbers: np.ndarray) -> Ragged:
    """The lists `name` of samples `ids` [n] of the sets `numbers` [n]."""
    parts, places = [], []
    for number in np.unique(numbers).tolist():
        which = np.flatnonzero(numbers == number)
        rows, counts = sets[number].ragged[name].rows_of(ids[which])
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        parts.append(Ragged(torch.from_numpy(as_label(rows)), starts))
        places.append(which)
    if len(parts) == 1:
        return parts[0]
    return Ragged.cat(parts).take(np.argsort(np.concatenate(places)))


def as_label(values: np.ndarray) -> np.ndarray:
    """The values as a batch has them: float32 or int64, an array of its own."""
    return np.array(values, np.float32 if values.dtype.kind == "f" else np.int64)


def carry(field: Field, values: np.ndarray, owners: np.ndarray, placed: Placed) -> np.ndarray:
    """Boxes or points [m, ...] of stored images in the pixels of their targets: float32, of the same shape.

    owners: int64 [m], which image of `placed` each one belongs to.
    """
    shape = values.shape
    if field.kind == "points":
        tail = shape[-2:] if len(shape) > 2 else shape[-1:]
        points, rows = _flat(values, tail, owners)
        if field.unknown is not None:
            lost = (points == field.unknown).all(axis=-1, keepdims=True)
            points = np.where(lost, UNKNOWN_POINT, points)
        return placed.points(points, rows, mirror=mirror_of(field)).reshape(shape).astype(np.float32)
    boxes, rows = _flat(values, shape[-1:], owners)
    edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    moved, left = placed.clip(placed.boxes(edges, rows), rows)
    visible = left >= LEAST_SHARE
    if field.unknown is not None:
        visible &= (boxes != field.unknown).any(axis=1)
    return np.where(visible[:, None], moved, GONE).reshape(shape).astype(np.float32)


def mirror_of(field: Field) -> np.ndarray | None:
    """The landmark whose name each one takes in a mirror image, by `left` and `right` in their names.

    int64 [k], or None where no name has a counterpart.
    """
    other = {"left": "right", "right": "left"}
    twins = [_SIDE.sub(lambda side: other[side[0]], name) for name in field.names]
    places = {name: place for place, name in enumerate(field.names)}
    mirror = np.array([places.get(twin, place) for place, twin in enumerate(twins)], np.int64)
    return None if np.array_equal(mirror, np.arange(len(mirror))) else mirror


def _flat(values: np.ndarray, tail: tuple[int, ...], owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [k, *tail], the image [k] of each)."""
    flat = values.astype(np.float64).reshape(-1, *tail)
    return flat, np.repeat(owners, len(flat) // len(values) if len(values) else 1)
