"""Files of predictions and of truth that other programs write: CSV, JSON or npz, as columns.

CSV has a header; JSON is a list of objects; npz holds an array a column, a row a sample. Imports no torch.
"""

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import FileError, parse_json, read_bytes, read_text

LARGEST = 1 << 31  # bytes of a file
IMAGE = "image"
SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?|gif|pp?gm)$", re.IGNORECASE)

Columns = dict[str, Any]  # name -> list of text and numbers [n], or array [n, ...]


def read_columns(path: Path, *, key: str) -> Columns:
    """Read a file by its suffix: .csv, .json or .npz. `key`: what the command line calls it, for messages.

    Raises FileError, which names the file, the line and the remedy.
    """
    remedy = "give a CSV with a header, a JSON list of objects, or an npz of columns"
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileError(f"{key}={path} does not exist: {remedy}")
    if suffix == ".npz":
        columns = _npz(path, key, remedy)
    elif suffix == ".json":
        columns = _of_records(path, key, _records(path, key, remedy), remedy)
    elif suffix == ".csv":
        columns = _csv(path, key, remedy)
    else:
        raise FileError(
            f"{key}={path}: a {'folder' if path.is_dir() else f'`{suffix}` file'} is not read: {remedy}"
        )
    if not columns or not len(next(iter(columns.values()))):
        raise FileError(f"{key}={path} holds no rows: {remedy}")
    return columns


def _csv(path: Path, key: str, remedy: str) -> Columns:
    text = read_text(path, limit=LARGEST, remedy=remedy).removeprefix("\ufeff")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise FileError(f"{key}={path} is not CSV ({error}): {remedy}") from None
    if not rows:
        return {}
    header = rows[0]
    if len(set(header)) < len(header):
        raise FileError(f"{key}={path}: its header names a column twice: {remedy}")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise FileError(
                f"{key}={path}, row {number} has {len(row)} cells, the header {len(header)}: fix this row"
            )
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def _records(path: Path, key: str, remedy: str) -> list[Any]:
    data = read_bytes(path, limit=LARGEST, remedy=remedy)
    records: list[Any] = parse_json(data, [dict], what=f"{key}={path}", remedy=remedy)
    return records


def _of_records(path: Path, key: str, records: list[dict[str, Any]], remedy: str) -> Columns:
    names = list(records[0]) if records else []
    for number, record in enumerate(records):
        if list(record) != names and set(record) != set(names):
            raise FileError(f"{key}={path}: object {number} has other entries than the first one: {remedy}")
    columns: Columns = {}
    for name in names:
        values = [record[name] for record in records]
        if values and isinstance(values[0], list):
            try:
                columns[name] = np.array(values, np.float64)
            except (TypeError, ValueError):
                raise FileError(
                    f"{key}={path}: {name} is not a list of as many numbers each: {remedy}"
                ) from None
        else:
            columns[name] = values
    return columns


def _npz(path: Path, key: str, remedy: str) -> Columns:
    data = read_bytes(path, limit=LARGEST, remedy=remedy)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FileError(f"{key}={path} is not an npz of plain arrays ({error}): {remedy}") from None
    lengths = {array.shape[0] if array.ndim else -1 for array in columns.values()}
    if len(lengths) > 1 or -1 in lengths:
        raise FileError(f"{key}={path}: its arrays have different numbers of rows: {remedy}")
    return {name: array.tolist() if array.ndim == 1 else array for name, array in columns.items()}


def numbers(columns: Columns, name: str, *, where: str) -> np.ndarray:
    """Return a column as finite float64 [n] or [n, d]; FileError names the first row that is no number."""
    values = columns[name]
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None or not np.isfinite(array).all():
        row = next((place for place, value in enumerate(values) if not _is_number(value)), 0)
        raise FileError(f"{where}: {name} of row {row + 1} is {str(values[row])[:40]!r}: give finite numbers")
    return array


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(np.array(value, np.float64)).all())
    except (TypeError, ValueError):
        return False


def wide(columns: Columns, name: str, *, where: str) -> np.ndarray | None:
    """Return [n, k] of the column `name`, or of `name_0`, `name_1` ...; None without either."""
    if isinstance(columns.get(name), np.ndarray) and columns[name].ndim == 2:
        return numbers(columns, name, where=where)
    parts: list[np.ndarray] = []
    while f"{name}_{len(parts)}" in columns:
        parts.append(numbers(columns, f"{name}_{len(parts)}", where=where))
    return np.stack(parts, 1) if parts else None


def need(columns: Columns, name: str, *, where: str) -> Sequence[Any]:
    """Return a column; FileError where the file lacks it."""
    if name not in columns:
        known = ", ".join(list(columns)[:8])
        raise FileError(f"{where} has no column `{name}`, only {known}: add it")
    column: Sequence[Any] = columns[name]
    return column


def image_key(name: Any) -> str:
    """Return the form in which names of images are compared: composed accents, no suffix, no `./`."""
    text = unicodedata.normalize("NFC", str(name)).replace("\\", "/")
    return SUFFIX.sub("", text.removeprefix("./"))


def rows_of(names: Sequence[Any], *, where: str) -> dict[str, int]:
    """Return the row of each image; FileError where one is named twice."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if rows.setdefault(image_key(name), row) != row:
            raise FileError(f"{where} names the image {name} twice: give each once")
    return rows


def matched(
    wanted: Sequence[str], rows: Mapping[str, int], *, where: str, skip: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return places in `wanted` and the rows of their predictions, and how many are absent.

    Raises UserError for absent ones, unless `skip` leaves them out.
    """
    found = [(place, rows[name]) for place, name in enumerate(wanted) if name in rows]
    absent = len(wanted) - len(found)
    if not found:
        raise UserError(
            f"{where} holds none of the {len(wanted)} images of the truth, such as {wanted[0]}: name them so"
        )
    if absent and not skip:
        first = next(name for name in wanted if name not in rows)
        raise UserError(
            f"{where} lacks {absent} of the {len(wanted)} images of the truth, first {first}: predict them, "
            "or type missing=skip"
        )
    pairs = np.array(found, np.int64)
    return pairs[:, 0], pairs[:, 1], absent
