"""What sources of boxes share: their fields, and what is done with rows that cannot be.

A box is x, y, width, height in pixels of the upright image. What sticks out is cut off and a row that comes
twice is taken once, both counted as mended; a row of which no box is left is listed with its reason. Some
sources state landmarks of each box too, x and y each; one outside of the image is not known, and counted. A
helper of `widerface.py`, `coco.py` and `yolo.py`, not a source.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data_shards.images.jpeg import read_head
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected
from data_shards.sampling.placed import UNKNOWN_POINT
from data_shards.shard_format.schema import Field
from data_shards.sources.base import read_file

IGNORE = "ignore"  # the first flag of every set: neither a target nor a mistake
# The landmarks of a face. Left and right are sides of the picture, where the face is upright.
FIVE_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
CLIPPED, TWICE = "boxes cut to their picture", "boxes listed twice"
BEYOND = "landmarks outside of their picture, taken as unknown"
_OUTSIDE = 0.5  # pixels that may be cut off as the rounding that they are
_FARTHEST = 1e9  # pixels: no picture is as large
_FIRST_BYTES = 1 << 16  # of a file, which nearly always hold its size
_MIRRORED = (2, 4, 5, 7)  # EXIF orientations in which left and right change places


def box_fields(
    names: Sequence[str], flags: Sequence[str] = (IGNORE,), points: Sequence[str] = ()
) -> dict[str, Field]:
    """The fields of a detection set, in the order in which `Boxes.labels` states them.

    points: names of the landmarks of each box (none: the set has no `box_points`).
    """
    fields = {
        "boxes": Field("boxes", "f4", (4,), ragged=True, unknown=None),
        "box_class": Field("class", "i4", names=tuple(names), ragged=True, unknown=None, rows_of="boxes"),
        "box_flags": Field(
            "bits", "u1", (len(flags),), tuple(flags), ragged=True, unknown=None, rows_of="boxes"
        ),
        "box_area": Field("value", "f4", ragged=True, rows_of="boxes"),
    }
    if points:
        shape = (len(points), 2)
        fields["box_points"] = Field("points", "f4", shape, tuple(points), ragged=True, rows_of="boxes")
    return fields


@dataclass
class Boxes:
    """The boxes of one picture, as its source lists them one by one."""

    size: tuple[int, int]  # width, height of the upright picture
    flags: int  # how many each box has
    points: int = 0  # landmarks of each box
    mended: list[str] = field(default_factory=list)
    rows: list[tuple[tuple[float, ...], int, tuple[int, ...], float, np.ndarray]] = field(
        default_factory=list
    )

    def add(
        self,
        box: Sequence[float],
        number: int,
        flags: Sequence[int] | None = None,
        area: float = -1.0,
        points: Sequence[Sequence[float]] | None = None,
    ) -> str:
        """Add one box of class `number`; returns why it cannot be one ("" = it can).

        area: of what the box is around, in pixels (-1 = not stated). points: x, y of each landmark in pixels,
        both UNKNOWN_POINT where it is not known (None = none is).
        """
        if not all(abs(each) < _FARTHEST for each in box):  # NaN is not, and neither are 400 digits
            return "is not a box of finite numbers"
        if points is not None and not (np.abs(points) < _FARTHEST).all():
            return "has a landmark that is not of finite numbers"
        x, y, width, height = map(float, box)
        if width <= 0 or height <= 0:
            return f"is a box without area, {width:g} x {height:g}"
        low, high = (max(x, 0.0), max(y, 0.0)), (min(x + width, self.size[0]), min(y + height, self.size[1]))
        if low[0] >= high[0] or low[1] >= high[1]:
            return f"is outside of its picture of {self.size[0]} x {self.size[1]}"
        cut = max(low[0] - x, low[1] - y, x + width - high[0], y + height - high[1])
        if cut > 0:
            self.mended += [CLIPPED] * (cut > _OUTSIDE)
            x, y, width, height = *low, high[0] - low[0], high[1] - low[1]
        stated = tuple(np.array([x, y, width, height], np.float32).tolist())
        if any(row[0] == stated and row[1] == number for row in self.rows):
            self.mended.append(TWICE)
            return ""
        bits = tuple(flags) if flags is not None else (0,) * self.flags
        known = float(np.float32(area)) if np.isfinite(area) and area >= 0 else -1.0
        self.rows.append((stated, number, bits, known, self._within(points)))
        return ""

    def _within(self, points: Sequence[Sequence[float]] | None) -> np.ndarray:
        """Landmarks [p, 2], of which those outside of the picture are not known."""
        if points is None or not self.points:
            return np.full((self.points, 2), UNKNOWN_POINT)
        stated = np.array(points, np.float64)
        known = (stated != UNKNOWN_POINT).any(axis=1)
        inside = np.asarray(((stated >= 0) & (stated <= self.size)).all(axis=1))
        self.mended += [BEYOND] * int((known & ~inside).sum())
        return np.where(inside[:, None], stated, UNKNOWN_POINT)

    def labels(self) -> tuple[np.ndarray, ...]:
        """The labels of `box_fields`: boxes [k, 4], classes [k], flags [k, f], areas [k], points [k, p, 2].

        Without landmarks the last is left out.
        """
        boxes, numbers, flags, areas, points = (
            zip(*self.rows, strict=True) if self.rows else ((), (), (), (), ())
        )
        found = (
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(numbers, np.int32),
            np.array(flags, np.uint8).reshape(-1, self.flags),
            np.array(areas, np.float32),
        )
        return (*found, np.array(points, np.float32).reshape(-1, self.points, 2)) if self.points else found


def picture_size(path: str) -> tuple[int, int, int]:
    """(width, height, EXIF orientation) of a picture as it is stored. Raises OSError, or Rejected."""
    with open(path, "rb") as file:
        first = file.read(_FIRST_BYTES)
    if first[:2] != b"\xff\xd8":
        height, width = pixels(read_file(path)).shape[:2]
        return width, height, 1
    try:
        head = read_head(first)
    except ValueError:
        try:
            head = read_head(read_file(path))
        except ValueError as error:
            raise Rejected(str(error)) from None
    return head.width, head.height, head.orientation


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height of a picture once its EXIF orientation is applied."""
    return (height, width) if orientation >= 5 else (width, height)


def upright_box(box: Sequence[float], size: tuple[int, int], orientation: int) -> tuple[float, ...]:
    """A box of a picture as stored, of `size` (width, height), in its upright pixels (Exif 2.3, 4.6.5.1)."""
    x, y, width, height = box
    wide, high = size
    if orientation >= 5:
        x, y, width, height, wide, high = y, x, height, width, high, wide
    if orientation in (3, 4, 7, 8):
        y = high - y - height
    if orientation in (2, 3, 6, 7):
        x = wide - x - width
    return x, y, width, height


def upright_points(
    points: Sequence[Sequence[float]], size: tuple[int, int], orientation: int
) -> list[Sequence[float]]:
    """FIVE_POINTS of a picture as stored, of `size` (width, height), in its upright pixels.

    Unknown ones stay. Where the picture is mirrored, left and right change their names.
    """
    moved = [
        each if tuple(each) == (UNKNOWN_POINT,) * 2 else upright_box((*each, 0, 0), size, orientation)[:2]
        for each in points
    ]
    return [moved[place] for place in (1, 0, 2, 4, 3)] if orientation in _MIRRORED else moved
