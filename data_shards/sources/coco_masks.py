"""Masks of COCO's annotations: polygons and run lengths, painted into one picture of class numbers.

Smaller objects lie above larger ones. A region of which the outline cannot be used is unknown, 255, within
its box. Polygons are filled by pycocotools, as COCO's own evaluation does. A helper of `coco.py`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_shards.images.masks import UNKNOWN

_FEWEST = 6  # numbers of a polygon: three corners
_FAR = 4  # sides of a picture: a corner further away is a mistake


def fault_of_outline(outline: Any, size: tuple[int, int]) -> str:
    """Why a `segmentation` is not one of a picture of `size` (width, height) ("" = it is)."""
    if isinstance(outline, Mapping):
        width, height = size
        if outline.get("size") != [height, width]:
            return f"has run lengths of size {outline.get('size')!r:.40}, its picture is [{height}, {width}]"
        counts = outline.get("counts")
        if isinstance(counts, str):
            return "" if _decoded(outline) is not None else "has run lengths that do not decode"
        if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
            return "has run lengths that are not whole numbers"
        total = sum(counts)
        return "" if total == width * height else f"has run lengths of {total} pixels, not {width * height}"
    if not isinstance(outline, list) or not outline:
        return "has no polygons or run lengths"
    for polygon in outline:
        if not isinstance(polygon, list) or len(polygon) < _FEWEST or len(polygon) % 2:
            return "has a polygon of fewer than three corners"
        far = _FAR * max(size)  # the painter cannot count pixels of any number
        if not all(type(each) in (int, float) and -far <= each <= far for each in polygon):
            return "has a polygon with corners that are not numbers near its picture"
    return ""


def packed(regions: Sequence[tuple[int, Any]], size: tuple[int, int]) -> bytes:
    """What `paint` needs of a picture, as bytes that go to the workers.

    regions: (class number, `segmentation`), or (255, box) of an unknown region, the lowest first.
    """
    return json.dumps([size, regions], separators=(",", ":")).encode()


def paint(data: bytes) -> np.ndarray:
    """The mask uint8 [h, w] of `packed` regions."""
    size, regions = json.loads(data)
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for number, outline in regions:
        if number == UNKNOWN:
            x, y, wide, high = outline
            rows = slice(max(0, math.floor(y)), max(0, math.ceil(y + high)))
            mask[rows, max(0, math.floor(x)) : max(0, math.ceil(x + wide))] = UNKNOWN
        else:
            mask[_covered(outline, width, height)] = number
    return mask


def _covered(outline: Any, width: int, height: int) -> np.ndarray:
    """bool [h, w]: the pixels of a `segmentation` without fault."""
    if isinstance(outline, dict) and isinstance(outline["counts"], list):
        runs = np.array(outline["counts"], np.int64)
        values = np.arange(len(runs)) % 2 == 1  # the first run is of pixels outside
        return np.repeat(values, runs).reshape(width, height).T  # column by column
    if isinstance(outline, list):
        from pycocotools import mask as run_lengths  # late: most packs need none

        merged = run_lengths.merge(run_lengths.frPyObjects(outline, height, width))
        outline = {"size": [height, width], "counts": merged["counts"].decode()}
    decoded = _decoded(outline)
    return np.zeros((height, width), bool) if decoded is None else decoded


def _decoded(outline: Mapping[str, Any]) -> np.ndarray | None:
    """bool [h, w] of compressed run lengths (None = they are not those of their size)."""
    height, width = outline["size"]
    runs = _runs(outline["counts"])
    if runs is None or sum(runs) != height * width:
        return None
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _runs(text: str) -> list[int] | None:
    """The run lengths of COCO's compressed text: five bits a letter, from the third run on differences."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            if place == len(text) or not 48 <= ord(text[place]) < 112 or shift > 40:
                return None
            bits = ord(text[place]) - 48
            value |= (bits & 31) << shift
            more, shift, place = bits & 32 != 0, shift + 5, place + 1
        if bits & 16:
            value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs if all(run >= 0 for run in runs) else None
