"""Lists of rows in a file: which samples a run trains on, or how often each comes (`data.rows=@FILE`).

    # set <sha256 of the manifest>
    row,weight,...
    17,0.25,...

UTF-8 CSV; further columns are for people to read. A row that is not listed is not chosen and weighs nothing.
The first line binds the numbers to one packed set (`rostro info` prints its sha256). A config holds the
absolute path and the sha256 of the file, `@/data/rows.csv#<sha256>`, so that a changed list is noticed.
"""

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import read_bytes, write_bytes

MARK = "@"  # before the name of a file in a config
LARGEST = 1 << 31  # bytes
COLUMNS = ("row", "weight")
_HEAD = re.compile(rb"# set ([0-9a-f]{64})\r?\n")
_LOCATED = re.compile(r"@(.+)#([0-9a-f]{64})")
_REMEDY = "give a list that `rostro balance` wrote for this set"


def is_file(text: str) -> bool:
    """Whether the value of a key names a list instead of an expression or a label."""
    return text.startswith(MARK)


def located(text: str, *, key: str) -> str:
    """Return `@FILE` with the absolute path and the hash of the file; other text as it is.

    Raises UserError where the file is not there, or is not the one whose hash the text states.
    """
    if not is_file(text):
        return text
    path, digest = _parts(text)
    found = hashlib.sha256(_read(path, key)).hexdigest()
    if digest not in ("", found):
        raise UserError(f"{key}={MARK}{path} is not the list that this run began with: restore it")
    return f"{MARK}{path}#{found}"


def shown(text: str) -> str:
    """Return a located value without the hash, for people to read."""
    return text.rpartition("#")[0] if _LOCATED.fullmatch(text) else text


def read_list(text: str, shards: Any, *, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows [k] int64, rising; weights [k] float32) of the list that the value of `key` names.

    shards: the opened set whose rows they are. Raises UserError for another file than the text states, for
    the list of another set, and for a row or a weight that cannot be, with its line.
    """
    path, digest = _parts(text)
    data = _read(path, key)
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{key}={MARK}{path} was changed: restore it, or start another run")
    named = f"{key}={MARK}{path}"
    head = _HEAD.match(data)
    if head is None:
        raise UserError(f"{named}: its first line is not `# set <sha256>`: {_REMEDY}")
    if head[1].decode() != shards.digest:
        raise UserError(f"{named} lists rows of another set than {shards.folder}: {_REMEDY}")
    try:
        text = data[head.end() :].decode()
    except UnicodeDecodeError:
        raise UserError(f"{named} is not UTF-8 text: {_REMEDY}") from None
    return _parsed(text, len(shards), named)


def _parsed(text: str, count: int, named: str) -> tuple[np.ndarray, np.ndarray]:
    lines = csv.reader(io.StringIO(text, newline=""))
    rows: list[int] = []
    weights: list[float] = []
    try:
        if tuple(next(lines, ())[:2]) != COLUMNS:
            raise UserError(f"{named}: its second line does not begin with `row,weight`: {_REMEDY}")
        for line in lines:
            row, weight = line[:2]
            rows.append(int(row))
            weights.append(float(weight))
            if not (0 <= rows[-1] < count and 0 <= weights[-1] < math.inf):
                raise ValueError
    except (ValueError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{named}: line {lines.line_num + 1} is not a row from 0 to {count - 1} and a weight from "
            f"0: {_REMEDY}"
        ) from None
    ids = np.array(rows, np.int64)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if not len(ids):
        raise UserError(f"{named} lists no row: {_REMEDY}")
    if (ids[1:] == ids[:-1]).any():
        twice = int(ids[1:][ids[1:] == ids[:-1]][0])
        raise UserError(f"{named} lists row {twice} twice: list it once")
    return ids, np.array(weights, np.float32)[order]


def write_list(
    path: Path,
    digest: str,
    rows: Iterable[int],
    weights: Iterable[float],
    *,
    names: Sequence[str] = (),
    notes: Iterable[Sequence[str]] = (),
) -> None:
    """Write a list of rows of the set with that manifest's sha256, in one step.

    names, notes: further columns, by their titles and row by row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    text.write(f"# set {digest}\n")
    writer.writerow([*COLUMNS, *names])
    for row, weight, note in zip(rows, weights, notes, strict=True):
        writer.writerow([row, f"{weight:.9g}", *note])
    write_bytes(path, text.getvalue().encode())


def _parts(text: str) -> tuple[str, str]:
    """(absolute path, sha256 or "") of `@FILE` or `@FILE#sha256`."""
    match = _LOCATED.fullmatch(text)
    path, digest = (match[1], match[2]) if match else (text.removeprefix(MARK), "")
    return os.path.abspath(os.path.expanduser(path)), digest


def _read(path: str, key: str) -> bytes:
    try:
        return read_bytes(path, limit=LARGEST, remedy=_REMEDY)
    except UserError as error:
        raise UserError(f"{key}={MARK}{error}") from None
