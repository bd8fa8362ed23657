"""Public pair lists: read in three formats, found in a set. A damaged line is refused by its number.

LFW's `pairs.txt` (`folds n`) and `pairsDevTest.txt` (`n`): for each fold n lines `Name n1 n2` of one person,
then n lines `Name1 n1 Name2 n2`. Paths: lines `person/image person/image 0|1`, separated by spaces or
tabs. CSV: the same three columns, with a header or without. Lists without folds are cut into ten blocks of
each kind.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_shards.errors import UserError
from data_shards.files import FileError, read_text
from hpc.metrics.pairs import Pairs

LARGEST = 256 << 20  # bytes of a list
FOLDS = 10  # of a list that states none
REMEDY = "give a list such as LFW's pairs.txt, or lines `person/image person/image 0|1`"
_NUMBER = re.compile(r"[0-9]{1,9}")  # ASCII: `²` and 5,000 digits are not numbers
_BLANKS = re.compile(r"[ \t]+")

ImageName = tuple[str, int | None]  # (name, number): `<name>/<name>_%04d`; (path, None)
Line = tuple[int, list[str]]  # number in the file, words


@dataclass(frozen=True)
class Listed:
    """A line of a pair list."""

    first: ImageName
    second: ImageName
    same: bool
    fold: int
    line: int


@dataclass(frozen=True)
class PairList:
    """A list and its format: `LFW, folds`, `LFW, no folds`, `paths` or `CSV`."""

    format: str
    pairs: list[Listed]


def read_list(path: Path) -> PairList:
    """Read a list; FileError names the line where it has none of the formats, or is damaged."""
    text = read_text(path, limit=LARGEST, remedy=REMEDY).removeprefix("\ufeff")
    rows = [line.removesuffix("\r").strip(" \t") for line in text.split("\n")]
    lines = [(number, row) for number, row in enumerate(rows, 1) if row]
    for number, row in lines:
        if not row.replace("\t", " ").isprintable():
            raise _wrong(path, number, row, "holds control characters")
    if not lines:
        raise FileError(f"pairs={path} is empty: {REMEDY}")
    head = _BLANKS.split(lines[0][1])
    comma = "," in lines[0][1] and "\t" not in lines[0][1]
    if len(head) <= 2 and not comma:
        pair_list = _read_lfw(path, lines)
    elif comma:
        pair_list = PairList("CSV", _blocks([_path_pair(path, *row) for row in _csv_rows(path, lines)]))
    else:
        split = [(number, row.split("\t") if "\t" in row else _BLANKS.split(row)) for number, row in lines]
        pair_list = PairList("paths", _blocks([_path_pair(path, *row) for row in split]))
    if not pair_list.pairs:
        raise FileError(f"pairs={path} holds a header and no pairs: {REMEDY}")
    if len({pair.same for pair in pair_list.pairs}) < 2:
        kind = "of one person" if pair_list.pairs and pair_list.pairs[0].same else "of two people"
        raise FileError(f"pairs={path} holds only pairs {kind}: the figures need both kinds")
    return pair_list


def _wrong(path: Path, number: int, row: str, why: str) -> FileError:
    shown = row if len(row) <= 60 else f"{row[:57]}..."
    shown = "".join(letter if letter.isprintable() else "?" for letter in shown)
    return FileError(f"pairs={path}, line {number}: `{shown}` {why}: take the whole list, or fix this line")


def _read_lfw(path: Path, lines: list[tuple[int, str]]) -> PairList:
    head = _BLANKS.split(lines[0][1])
    if not all(_NUMBER.fullmatch(word) and int(word) for word in head):
        why = "is neither the number of folds and pairs (LFW's has `10 300`) nor a pair of paths with 0 or 1"
        raise _wrong(path, *lines[0], why)
    folds, each = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
    if len(lines) - 1 != folds * 2 * each:
        raise FileError(
            f"pairs={path} has {len(lines) - 1} pairs, its first line says {folds * 2 * each}: take the "
            f"whole list"
        )
    pairs = []
    for place, (number, row) in enumerate(lines[1:]):
        fold, within = divmod(place, 2 * each)
        words, same = _BLANKS.split(row), within < each
        form = "Name n1 n2" if same else "Name1 n1 Name2 n2"
        numbers = words[1:] if same else words[1::2]
        if len(words) != (3 if same else 4) or not all(map(_NUMBER.fullmatch, numbers)):
            raise _wrong(
                path, number, row, f"is not a pair of {'one person' if same else 'two people'}, `{form}`"
            )
        first, second = (words[0], int(numbers[0])), (words[0 if same else 2], int(numbers[1]))
        if first == second or (not same and words[0] == words[2]):
            raise _wrong(
                path, number, row, "pairs an image with itself" if same else "names one person twice"
            )
        pairs.append(Listed(first, second, same, fold, number))
    return PairList("LFW, folds", pairs) if folds > 1 else PairList("LFW, no folds", _blocks(pairs))


def _csv_rows(path: Path, lines: list[tuple[int, str]]) -> list[Line]:
    rows = []
    for number, row in lines:
        try:
            (cells,) = csv.reader([row], strict=True)
        except (csv.Error, ValueError):
            raise _wrong(path, number, row, "is not a line of CSV") from None
        rows.append((number, [cell.strip(" \t") for cell in cells]))
    header = rows[0][1]
    return rows[1:] if header[-1] not in ("0", "1") and not any("/" in cell for cell in header) else rows


def _path_pair(path: Path, number: int, words: list[str]) -> Listed:
    row = " ".join(words)
    if len(words) != 3 or words[2] not in ("0", "1"):
        raise _wrong(path, number, row, "is not `person/image person/image 0|1`")
    if not all("/" in word.strip("/") for word in words[:2]):
        raise _wrong(path, number, row, "names an image without its person's folder")
    if words[0] == words[1]:
        raise _wrong(path, number, row, "pairs an image with itself")
    return Listed((words[0], None), (words[1], None), words[2] == "1", 0, number)


def _blocks(pairs: list[Listed]) -> list[Listed]:
    """Return the pairs with `FOLDS` blocks of each kind as their folds."""
    totals = {kind: sum(pair.same == kind for pair in pairs) for kind in (True, False)}
    places = {True: 0, False: 0}
    placed = []
    for pair in pairs:
        placed.append(replace(pair, fold=places[pair.same] * FOLDS // totals[pair.same]))
        places[pair.same] += 1
    return placed


@dataclass(frozen=True)
class Resolved:
    """A pair list on a set: the pairs whose images are there, by row of `ids`."""

    pairs: Pairs
    ids: np.ndarray  # [m] ascending sample ids of the images that the pairs need
    lines: np.ndarray  # [n] line of each pair in the file
    listed: int  # pairs of the list
    absent: int  # pairs that name an image which is not there
    first_absent: str


def shown(image: ImageName) -> str:
    """Name an image as a path."""
    name, number = image
    return name if number is None else f"{name}/{name}_{number:04d}"


def resolve(
    listed: list[Listed], find: Callable[[str, int | None], int | None], *, path: Path, skip: bool
) -> Resolved:
    """Find the images of a list; `find(name, number)` returns a sample id, or None where it is absent.

    A pair with an absent image raises UserError or, with `skip`, is counted and left out.
    """
    usable: list[tuple[int, int, Listed]] = []
    absent, first_absent = 0, ""
    for pair in listed:
        named = (pair.first, pair.second)
        places = [find(*image) for image in named]
        if places[0] is not None and places[1] is not None:
            usable.append((places[0], places[1], pair))
            continue
        absent += 1
        first_absent = first_absent or next(
            shown(image) for image, place in zip(named, places, strict=True) if place is None
        )
    _check_usable(path, usable=[pair for *_, pair in usable], absent=absent, first=first_absent, skip=skip)
    columns = np.array([(a, b) for a, b, _ in usable], np.int64)
    if (columns[:, 0] == columns[:, 1]).any():
        pair = usable[int(np.argmax(columns[:, 0] == columns[:, 1]))][2]
        raise _wrong(
            path, pair.line, f"{shown(pair.first)} {shown(pair.second)}", "pairs an image with itself"
        )
    ids, rows = np.unique(columns, return_inverse=True)
    rows = rows.reshape(columns.shape)
    same = np.array([pair.same for *_, pair in usable])
    fold = np.array([pair.fold for *_, pair in usable], np.int64)
    genuine = int(same.sum())
    # The whole list is balanced by its makers; what is left of it need not be, nor a list of another kind.
    kept = len(same) - genuine
    pairs = Pairs(rows[:, 0], rows[:, 1], same, fold, genuine, kept, balanced=absent > 0 or genuine != kept)
    return Resolved(
        pairs, ids, np.array([pair.line for *_, pair in usable]), len(listed), absent, first_absent
    )


def check_people(resolved: Resolved, identity: np.ndarray, *, path: Path) -> None:
    """Refuse a line that calls two people of the set one person, or one of them two.

    `identity`: of the rows that the pairs name.
    """
    people = identity[resolved.pairs.first] == identity[resolved.pairs.second]
    if (wrong := np.flatnonzero(people != resolved.pairs.same)).size:
        says, holds = ("one person", "two") if not people[wrong[0]] else ("two people", "one")
        raise UserError(
            f"pairs={path}, line {resolved.lines[wrong[0]]} says {says}, the set says {holds} "
            f"({wrong.size} such lines): fix the list, or give data= the set that it was made for"
        )


def _check_usable(path: Path, *, usable: list[Listed], absent: int, first: str, skip: bool) -> None:
    """Refuse a list with absent images, unless they may be skipped and both kinds of pairs are left."""
    both = len({pair.same for pair in usable}) == 2
    if not absent or (skip and both):
        return
    count = f"only {len(usable)} of {len(usable) + absent} pairs are usable"
    remedy = "type missing=skip to use them"
    if not both:
        kind = "" if not usable else (", all genuine" if usable[0].same else ", all impostors")
        count, remedy = count + kind, "give data= a set that holds the people of the list"
    raise UserError(f"pairs={path} names images that are not in the set, first {first}; {count}: {remedy}")
