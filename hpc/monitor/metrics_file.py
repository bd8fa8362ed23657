"""Cuts `metrics.jsonl` back to a clock, as `event_file.py` does with TensorBoard's files."""

from pathlib import Path

from data_shards.files import FileError, MissingFile, parse_json, read_bytes
from hpc.monitor import event_file

LINES = 1 << 32  # bytes: metrics.jsonl grows with the run


def trim_lines(path: Path, clock: int) -> list[str]:
    """Cut a file of JSON lines back to `clock`, as a new file (see `event_file.trim`).

    Returns a warning where lines are damaged; they are left out, and a copy of the file is kept.
    """
    try:
        *lines, _ = read_bytes(path, limit=LINES).split(b"\n")
    except MissingFile:
        return []
    kept, damaged = [], 0
    for line in lines:
        try:
            if b"\r" in line:  # white space to JSON, but the end of a line to readers of text
                raise FileError(f"{path}: a line is broken")
            if parse_json(line, {"clock": int, "group?": str}, what=str(path))["clock"] <= clock:
                kept.append(line + b"\n")
        except FileError:
            damaged += 1
    warnings = []
    if damaged:
        copy = event_file.keep_damaged(path)
        warnings.append(
            f"warning: {path}: {damaged} damaged lines are left out; the file as it was: {copy.name}"
        )
    event_file.replace(path, b"".join(kept))
    return warnings
