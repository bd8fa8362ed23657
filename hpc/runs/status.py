"""Reads, with types, the last state that the ranks of a run wrote to `status.json`. Imports no torch.

People read it, and so does the decision whether the run still lives; no figure of a run depends on it. What a
state means, and when it is corrected: `RunDir.status`.
"""

import math
import sys
from pathlib import Path
from typing import Any

from data_shards.files import FileError, MissingFile, conform, read_json

COUNT = range(1 << 62)
SCHEMA = {
    "state?": str,
    "clock?": (COUNT, None),
    "images?": (COUNT, None),
    "rate?": (float, None),
    "loss?": (float, None),
    "metrics?": ({str: (float, None)}, None),
    "pids?": {str: list},
    "time?": (float, None),
    "began?": float,
    "message?": str,
    "asked?": (int, None),
    "attempt?": (str, None),
}
REMEDY = "delete it if no process of the run lives"


def read(path: Path) -> dict[str, Any]:
    """Read the file; {} where there is none. Raises FileError where it is damaged."""
    try:
        status: dict[str, Any] = read_json(path, remedy=REMEDY)
    except MissingFile:
        return {}
    for key in ("loss", "rate"):  # earlier versions wrote a loss that was not a number
        if isinstance(status.get(key), float) and not math.isfinite(status[key]):
            status[key] = None
    if fault := conform(status, SCHEMA):
        raise FileError(f"{path}: {fault}: {REMEDY}")
    for rank, place in status.get("pids", {}).items():
        if not (rank.isascii() and rank.isdigit() and len(rank) < 10 and _is_place(place)):
            raise FileError(f"{path}: pids.{rank[:20]!a} is not the place of a rank: {REMEDY}")
    return status


def _is_place(place: list[Any]) -> bool:
    """Return whether `place` is [host, pid, start time]."""
    kinds = [type(item) for item in place]
    return (
        len(kinds) in (2, 3) and kinds[:2] == [str, int] and all(kind in (int, float) for kind in kinds[2:])
    )


def read_or_warn(path: Path) -> dict[str, Any]:
    """Read the file for a caller that must not fail: {} and a warning where it is damaged."""
    try:
        return read(path)
    except FileError as error:
        print(f"warning: {error}", file=sys.stderr)
        return {}
