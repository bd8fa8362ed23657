"""The text lists of WIDER FACE: a picture's path, how many faces it has, then a row of ten numbers for each.

    0--Parade/0_Parade_marchingband_1_849.jpg
    1
    449 330 122 149 0 0 0 0 0 0      x, y, width, height, blur, expression, illumination, invalid, occlusion,
                                     pose

A picture without faces states 0 and has one row of zeros all the same. A helper of `widerface.py`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from data_shards.files import read_text

COLUMNS = 10
LARGEST = 1 << 28  # bytes of a list; the longest published one has 5 million
_PATH = re.compile(r"[^/\s][^\0]*\.(?:jpe?g|png|bmp|webp)", re.IGNORECASE)


class Listed(NamedTuple):
    """A picture of a list."""

    path: str  # below the folder `images`
    line: int  # of the list, from 1
    stated: str  # how many faces it has, as the list states it
    rows: list[tuple[int, str]]  # (line, text) of each row that follows

    def fault(self) -> str:
        """Why its rows cannot be trusted ("" = they can): which of them are its faces is not known."""
        if not self.stated.isdecimal() or len(self.stated) > 9:
            return f"is followed by {self.stated!r:.40} instead of a number of faces"
        if int(self.stated) != len(self.faces()):
            return f"states {int(self.stated)} faces, but {len(self.rows)} rows follow"
        return ""

    def faces(self) -> list[tuple[int, str]]:
        """Its rows without the one that stands for no face."""
        if self.stated.strip("0") == "" and len(self.rows) == 1 and not self.rows[0][1].strip(" 0"):
            return []
        return self.rows


def read_list(path: str) -> Iterator[Listed]:
    """The pictures of one list, in its order. Raises UserError for a file that cannot be read."""
    found: Listed | None = None
    for number, line in enumerate(read_text(path, limit=LARGEST).splitlines(), start=1):
        text = line.strip()
        if _PATH.fullmatch(text):
            if found:
                yield found
            found = Listed(text, number, "", [])
        elif found and not found.stated:
            found = found._replace(stated=text or " ")
        elif text:
            found = found or Listed("", number, "", [])
            found.rows.append((number, text))
    if found:
        yield found


def numbers_of(row: str) -> list[float] | None:
    """The ten numbers of a row (None = it does not state them)."""
    try:
        numbers = [float(word) for word in row.split()]
    except ValueError:
        return None
    return numbers if len(numbers) == COLUMNS else None
