"""The text labels of YOLO: a file a picture, a row a box: class, then centre x, y, width, height as shares.

The shares are of the upright picture. A row with more numbers is a class and the corners of a polygon, whose
box is taken; or where landmarks are asked for, x and y of each behind the box, negative ones not visible. A
helper of `yolo.py`.
"""

import contextlib
import os

from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_text, read_yaml
from data_shards.sampling.placed import UNKNOWN_POINT
from data_shards.sources.boxes import Boxes

TABLE = "data.yaml"
LARGEST = 1 << 24  # bytes of the labels of a picture
POLYGON = "polygons taken as their boxes"
_CORNERS = 6  # numbers of a polygon, at least
_MOST_CLASSES = 10_000


def class_names(path: str) -> list[str]:
    """The `names` of a data.yaml, by number. Raises UserError for another file."""
    data = read_yaml(path)
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    words = [str(name) for name in names] if isinstance(names, list) else []
    if not 0 < len(words) <= _MOST_CLASSES or len(set(words)) < len(words) or not all(words):
        raise UserError(f"{path}: `names` is not a list of different names; correct it or type classes=")
    return words


def read_rows(path: str) -> list[tuple[int, str]]:
    """(line, text) of each row of a file. Raises OSError for one that cannot be read."""
    try:
        text = read_text(path, limit=LARGEST)
    except MissingFile:
        return []
    except FileError as error:
        raise OSError(str(error)) from None
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def add_row(boxes: Boxes, row: str, classes: int) -> str:
    """Add the box of a row; returns why it cannot be one ("" = it can)."""
    words = row.split()
    try:
        number, shares = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return "is not numbers"
    if number != int(number) if abs(number) < 1e9 else True:
        return f"has the class {words[0]:.20}, which is not a whole number"
    if not 0 <= number < classes:
        return f"has the class {words[0]:.20}, not 0 to {classes - 1}"
    width, height = boxes.size
    if len(shares) in (4, 4 + 2 * boxes.points):
        x, y, wide, high = shares[:4]
        box = ((x - wide / 2) * width, (y - high / 2) * height, wide * width, high * height)
        points = [_point(pair, boxes.size) for pair in zip(shares[4::2], shares[5::2], strict=True)]
        return boxes.add(box, int(number), points=points or None)
    if boxes.points:
        return f"has {len(words)} numbers, not 5, or {5 + 2 * boxes.points} with its landmarks"
    if len(shares) < _CORNERS or len(shares) % 2:
        return f"has {len(words)} numbers, not 5"
    across, down = shares[::2], shares[1::2]
    low, high_corner = (min(across), min(down)), (max(across), max(down))
    box = (
        low[0] * width,
        low[1] * height,
        (high_corner[0] - low[0]) * width,
        (high_corner[1] - low[1]) * height,
    )
    why = boxes.add(box, int(number))
    boxes.mended += [POLYGON] * (why == "")
    return why


def _point(shares: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    """A landmark in pixels of a picture of `size` (width, height)."""
    hidden = min(shares) < 0
    return (UNKNOWN_POINT, UNKNOWN_POINT) if hidden else (shares[0] * size[0], shares[1] * size[1])


def largest_class(paths: list[str]) -> int:
    """The largest class of some files of labels, -1 for none; what is not a label is passed over."""
    largest = -1
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # the packing lists it
            for _, row in read_rows(path) if os.path.isfile(path) else ():
                with contextlib.suppress(ValueError):
                    number = float(row.split()[0])
                    if number.is_integer() and 0 <= number < _MOST_CLASSES:
                        largest = max(largest, int(number))
    return largest
