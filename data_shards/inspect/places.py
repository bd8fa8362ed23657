"""Boxes and masks drawn on the thumbnails of a contact sheet."""

import colorsys
from collections.abc import Iterator

import cv2
import numpy as np

from data_shards.images.masks import UNKNOWN, read_mask
from data_shards.images.pixels import Rejected
from data_shards.shard_format.schema import Schema
from data_shards.shard_format.shard_set import ShardSet

_OPACITY = 0.45  # of a mask
_GREY = (128, 128, 128)  # of what is unknown or ignored
_IGNORE = "ignore"


def has_places(schema: Schema) -> bool:
    """Whether a set states places in its images that can be drawn: boxes or masks."""
    return any(field.kind in ("boxes", "mask") for field in schema.fields.values())


def fitted(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a whole image in the middle of a square of `side` pixels."""
    scale = side / max(width, height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    return (side - wide) // 2, (side - high) // 2, wide, high


def draw_places(cell: np.ndarray, shards: ShardSet, row: int) -> np.ndarray:
    """The thumbnail uint8 [side, side, 3] of a row with its masks and boxes, in a colour for each class.

    Ignored boxes and unknown pixels are grey; landmarks of boxes are dots. A mask that does not decode is
    left out: `rostro check` names it.
    """
    out = cell.copy()
    left, top, wide, high = fitted(int(shards.width[row]), int(shards.height[row]), cell.shape[0])
    for name, field in shards.schema.pieces.items():
        mask = _mask(shards, name, row) if field.kind == "mask" else None
        if mask is not None:
            small = cv2.resize(mask, (wide, high), interpolation=cv2.INTER_NEAREST)
            part = out[top : top + high, left : left + wide]
            tinted = part * (1 - _OPACITY) + _palette()[small] * _OPACITY
            part[:] = np.where((small > 0)[..., None], tinted, part)
    scale = wide / int(shards.width[row])
    for name, field in shards.schema.labels.items():
        if field.kind == "boxes":
            boxes, colours = _boxes(shards, name, row)
            for (x, y, width, height), colour in zip((boxes * scale).tolist(), colours, strict=True):
                corner = (left + round(x), top + round(y))
                other = (
                    max(left + round(x + width) - 1, corner[0]),
                    max(top + round(y + height) - 1, corner[1]),
                )
                cv2.rectangle(out, corner, other, colour, 1)
        elif field.kind == "points" and field.rows_of:
            for number, x, y in _marks(shards, name, row):
                cv2.circle(out, (left + int(x * scale), top + int(y * scale)), 1, _colour(1 + number), -1)
    return out


def _marks(shards: ShardSet, name: str, row: int) -> Iterator[tuple[int, float, float]]:
    """Yield (number, x, y) of each known landmark of the boxes of a row."""
    field = shards.schema.fields[name]
    points = shards.ragged[name].rows_of(np.array([row]))[0].astype(np.float64).reshape(-1, *field.shape)
    for number, (x, y) in ((n, mark) for marks in points.tolist() for n, mark in enumerate(marks)):
        if field.unknown is None or (x, y) != (field.unknown,) * 2:
            yield number, x, y


def _boxes(shards: ShardSet, name: str, row: int) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """(boxes float64 [k, 4] of a field of a row, the colour of each)."""
    field = shards.schema.fields[name]
    if not field.ragged:
        boxes = np.asarray(shards.labels[name][row], np.float64).reshape(-1, 4)
        known = (boxes != field.unknown).any(axis=1)
        return boxes[known], [_colour(1)] * int(known.sum())
    rows = {
        other: shards.ragged[other].rows_of(np.array([row]))[0]
        for other, each in shards.schema.ragged.items()
        if other == name or each.rows_of == name
    }
    boxes = rows[name].astype(np.float64).reshape(-1, 4)
    numbers, ignored = np.zeros(len(boxes), int), np.zeros(len(boxes), bool)
    for other, values in rows.items():
        each = shards.schema.fields[other]
        if other == name or len(values) != len(boxes):
            continue
        if each.kind == "class" and values.ndim == 1:
            numbers = values.astype(int)
        if each.kind == "bits" and _IGNORE in each.names:
            ignored = values[:, each.names.index(_IGNORE)] == 1
    colours = [_GREY if out else _colour(1 + n) for n, out in zip(numbers.tolist(), ignored, strict=True)]
    known = np.flatnonzero((boxes != shards.schema.fields[name].unknown).any(axis=1)).tolist()
    return boxes[known], [colours[place] for place in known]


def _mask(shards: ShardSet, name: str, row: int) -> np.ndarray | None:
    parts = shards.pieces[name]
    if not parts["size"][row]:
        return None
    with open(shards.shards[int(shards.shard[row])], "rb") as file:
        file.seek(int(parts["offset"][row]))
        data = file.read(int(parts["size"][row]))
    try:
        return read_mask(data)
    except Rejected:
        return None


def _palette() -> np.ndarray:
    """uint8 [256, 3]: the colour of each number of a mask."""
    colours = [_colour(number) for number in range(256)]
    colours[UNKNOWN] = _GREY
    return np.array(colours, np.uint8)


def _colour(number: int) -> tuple[int, ...]:
    """A bright colour, far from those of the numbers before it: hues by the golden ratio, 1 is red."""
    red, green, blue = colorsys.hsv_to_rgb((number - 1) * 0.618034 % 1, 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
