"""The table of FER2013: a line for each face, `emotion,pixels,Usage`, 300 MB as published.

Opening it reads it once from front to back and keeps where each row begins; rows are read by their offset.
The columns are found by their names, in any order, so `icml_face_data.csv` and `train.csv` are read too.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_shards.errors import UserError
from data_shards.sources.base import netpbm

SIDE = 48  # pixels
USAGES = {"training": "train", "publictest": "val", "privatetest": "test"}
LONGEST = 1 << 17  # bytes of a line; 48 x 48 pixels take 9,300 at most


class Row(NamedTuple):
    """One line of the table."""

    line: int  # its number, from 1
    emotion: int  # -1 where it is unfit
    part: str  # train, val or test ("" = the table does not state it)
    digest: str  # of the pixels, by which equal faces are known
    unfit: str


class FerTable:
    """The rows of one table and where they are."""

    def __init__(self, path: str) -> None:
        """Raises UserError where the file is not such a table."""
        self.path = path
        self.rows: list[Row] = []
        offsets, lengths = [0], [0]  # of line 0, which there is not
        try:
            with open(path, "rb") as file:
                header = [word.decode("latin-1").lower() for word in _words(_line(file, path, 1))]
                if not {"emotion", "pixels"} <= set(header):
                    raise UserError(f"{path} line 1: is not emotion,pixels,Usage; restore the file")
                place, number = file.tell(), 2
                offsets.append(0)
                lengths.append(place)
                while line := _line(file, path, number):
                    offsets.append(place)
                    lengths.append(len(line))
                    place += len(line)
                    if line.strip():
                        self.rows.append(_row(number, line, header))
                    number += 1
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give the csv of FER2013, or its folder") from None
        self.column = header.index("pixels")
        self.offsets, self.lengths = np.array(offsets, np.int64), np.array(lengths, np.int64)

    def __getstate__(self) -> dict[str, object]:
        """Workers only read pixels, so the rows are not sent to them."""
        return vars(self) | {"rows": []}

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def read(self, line: int) -> bytes:
        """The face of a line, as PGM. Raises OSError for pixels that are not numbers of 0 to 255."""
        with open(self.path, "rb") as file:
            file.seek(int(self.offsets[line]))
            data = file.read(int(self.lengths[line]))
        pixels = dict(enumerate(_words(data))).get(self.column, b"")
        strange = pixels.translate(None, b"0123456789 ")
        numbers = np.fromstring(pixels, np.int64, sep=" ") if not strange else np.empty(0, np.int64)
        if len(numbers) != SIDE * SIDE or numbers.min() < 0 or numbers.max() > 255:
            raise OSError("a pixel is not a number of 0 to 255")
        return netpbm(numbers.astype(np.uint8).reshape(SIDE, SIDE, 1))


def _words(line: bytes) -> list[bytes]:
    """The columns of a line; none of them may hold a comma."""
    return [word.strip(b' "\r\n') for word in line.split(b",")]


def _line(file: object, path: str, number: int) -> bytes:
    line: bytes = file.readline(LONGEST)  # type: ignore[attr-defined]
    if len(line) == LONGEST:
        raise UserError(f"{path} line {number}: has more than {LONGEST:,} bytes; give the csv of FER2013")
    return line


def _row(number: int, line: bytes, header: list[str]) -> Row:
    words = _words(line)
    values = dict.fromkeys(header, b"") | dict(zip(header, words, strict=False))
    pixels = values["pixels"]
    count = pixels.count(b" ") + 1
    if count != SIDE * SIDE:  # or there are several blanks between two
        count = len(pixels.split())
    emotion, usage = (values.get(name, b"").decode("latin-1") for name in ("emotion", "usage"))
    part = USAGES.get(usage.lower(), "")
    fault = ""
    if count != SIDE * SIDE:
        fault = f"has {count} pixels of {SIDE * SIDE} ({SIDE} x {SIDE})"
    elif len(words) != len(header):
        fault = f"has {len(words)} of the {len(header)} columns"
    elif emotion not in tuple("0123456"):
        fault = f"its emotion {emotion!r:.12} is not a number of 0 to 6"
    elif "usage" in header and not part:
        fault = f"its Usage {usage!r:.20} is not Training, PublicTest or PrivateTest"
    if fault and not line.endswith(b"\n"):
        fault += ": the file ends in this line"
    digest = hashlib.sha256(pixels).hexdigest()[:32]
    return Row(number, -1 if fault else int(emotion), part, digest, fault)
