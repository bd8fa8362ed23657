"""The lists of CelebA: names of pictures with attributes, with a person, or with a part of the set.

As published their words are separated by blanks, and lines end in LF or CR LF; that of the attributes begins
with the number of pictures. Copies as csv, with the names of the columns in line 1, are read too. A picture
is known by its name without suffix, since the aligned pictures also exist as PNG.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_shards.errors import UserError
from data_shards.sources.base import stem


class Attributes(NamedTuple):
    """The list of the attributes."""

    names: tuple[str, ...]
    rows: dict[str, int]  # {picture without suffix: its row}
    bits: np.ndarray  # i1 [pictures, attributes], 0 or 1


def read_attributes(path: str) -> Attributes:
    """Read list_attr_celeba. Raises UserError for another count than line 1 says, and for a damaged line."""
    lines = _lines(path)
    expected = -1
    if not path.endswith(".csv"):
        _, words = next(lines, (1, [""]))
        if len(words) != 1 or not words[0].isdecimal():
            raise UserError(f"{path} line 1: is not the number of pictures; restore the file")
        expected = int(words[0])
    _, words = next(lines, (2, []))
    names = tuple(words[path.endswith(".csv") :])
    if not names or len(set(names)) < len(names) or names[0] in ("1", "-1"):
        raise UserError(f"{path}: has no line with the names of the attributes; restore the file")
    rows: dict[str, int] = {}
    bits = bytearray()
    for number, (name, *values) in lines:
        if len(values) != len(names):
            raise UserError(
                f"{path} line {number}: has {len(values)} values for {len(names)} attributes; "
                "restore the file"
            )
        if not {"1", "-1"}.issuperset(values):
            strange = next(value for value in values if value not in ("1", "-1"))
            raise UserError(f"{path} line {number}: {strange:.20} is not -1 or 1; correct it")
        _add(rows, name, len(rows), f"{path} line {number}")
        bits += bytes(value == "1" for value in values)
    if expected not in (-1, len(rows)):
        raise UserError(
            f"{path}: its first line says {expected} pictures, but it lists {len(rows)}; restore the file, "
            "or correct its first line"
        )
    return Attributes(names, rows, np.frombuffer(bytes(bits), np.int8).reshape(-1, len(names)))


def read_numbers(path: str, *, most: int) -> dict[str, int]:
    """{picture without suffix: its number} of a list, each from 0 to `most`. Raises UserError."""
    numbers: dict[str, int] = {}
    for number, (name, *values) in _lines(path):
        if number == 1 and path.endswith(".csv"):
            continue
        if len(values) != 1 or not values[0].isdecimal() or int(values[0][:12]) > most:
            raise UserError(
                f"{path} line {number}: is not the name of a picture and a number of 0 to {most}; "
                "restore the file"
            )
        _add(numbers, name, int(values[0]), f"{path} line {number}")
    return numbers


def _lines(path: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, its words) of all lines that are not empty."""
    separator = "," if path.endswith(".csv") else None
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:  # as Python reads file names
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, [word.strip() for word in line.split(separator)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; restore the file") from None


def _add(rows: dict[str, int], name: str, value: int, place: str) -> None:
    key = stem(os.path.basename(name))
    if key in rows:
        raise UserError(f"{place}: names {name} again; restore the file")
    rows[key] = value
