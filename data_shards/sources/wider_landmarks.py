"""Landmarks of WIDER FACE as RetinaFace publishes them (Deng et al., CVPR 2020), in one text file, label.txt.

    # 0--Parade/0_Parade_marchingband_1_849.jpg
    449 330 122 149 488.906 373.643 0.0 542.089 376.442 0.0 515.031 412.83 0.0 485.174 425.893 0.0 ... 0.82

A face a row: x, y, width, height as the official list states them; x, y and a flag of both eyes, nose and
corners of the mouth, left ones first; and how sharp it is. A landmark with a flag or coordinate
below 0 is not marked, and of a row of the box alone none is. A helper of `widerface.py`.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from data_shards.errors import UserError
from data_shards.files import read_text
from data_shards.sampling.placed import UNKNOWN_POINT
from data_shards.shard_format.keys import visible
from data_shards.sources.boxes import FIVE_POINTS

LARGEST = 1 << 28  # bytes of the file; the published one has 25 million
_EACH = 3  # numbers of a landmark
_ALONE, _WHOLE = 4, 4 + _EACH * len(FIVE_POINTS)  # numbers of a row, one more where it says how sharp
_PATH = re.compile(r"#\s*(\S.*)")


class Marked(NamedTuple):
    """The landmarks of a face."""

    line: int  # of the file, from 1
    points: list[tuple[float, float]]  # as FIVE_POINTS, in pixels of the stored picture


class Marks(NamedTuple):
    """What the file states."""

    faces: dict[str, dict[tuple[float, ...], Marked]]  # picture below `images` -> box of a face -> it
    faults: list[tuple[int, str]]  # (line, why it cannot be) of rows that are left out


def read_landmarks(path: str) -> Marks:
    """Read the file. Raises UserError for one that cannot be read, or that states no landmarks."""
    found, picture = Marks({}, []), ""
    text = read_text(path, limit=LARGEST).removeprefix("\N{BYTE ORDER MARK}")
    for number, line in enumerate(text.splitlines(), start=1):
        row = line.strip()
        if head := _PATH.fullmatch(row):
            picture = head[1].removeprefix("/")
        elif row:
            numbers = _numbers(row)
            faces = found.faces.get(picture, {})
            if not picture:
                found.faults.append((number, f"row {row!r:.60} is of no picture"))
            elif numbers is None:
                why = f"is not {_ALONE}, {_WHOLE} or {_WHOLE + 1} finite numbers"
                found.faults.append((number, f"{visible(picture)}: row {row!r:.60} {why}"[:300]))
            elif tuple(numbers[:_ALONE]) in faces:
                found.faults.append((number, f"{visible(picture)}: row {row!r:.60} comes twice"[:300]))
            elif len(numbers) > _ALONE:
                found.faces.setdefault(picture, {})[tuple(numbers[:_ALONE])] = Marked(
                    number, _points(numbers[_ALONE:])
                )
    if not found.faces:
        raise UserError(
            f"{path}: has no rows of faces with landmarks below a picture's `# EVENT/NAME.jpg`: give "
            "RetinaFace's label.txt"
        )
    return found


def _numbers(row: str) -> list[float] | None:
    """The numbers of a row (None = it does not state a face)."""
    try:
        numbers = [float(word) for word in row.split()]
    except ValueError:
        return None
    good = len(numbers) in (_ALONE, _WHOLE, _WHOLE + 1) and all(map(math.isfinite, numbers))
    return numbers if good else None


def _points(numbers: Sequence[float]) -> list[tuple[float, float]]:
    points = []
    for at in range(0, _EACH * len(FIVE_POINTS), _EACH):
        x, y, flag = numbers[at : at + _EACH]
        points.append((UNKNOWN_POINT, UNKNOWN_POINT) if min(x, y, flag) < 0 else (x, y))
    return points
