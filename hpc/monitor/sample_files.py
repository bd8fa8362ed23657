"""Keeps grids of images as files: RUN/samples/<name>/<clock, 12 digits>.png, from which movies are made.

Their names sort by clock. A resume takes away those beyond its clock, which will be made again.
"""

from pathlib import Path

from data_shards.files import write_bytes

FOLDER = "samples"
DIGITS = 12  # of the clock


def write(run: Path, name: str, clock: int, png: bytes) -> None:
    """Write one grid, in one step. Raises OSError."""
    folder = run / FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{clock:0{DIGITS}}.png", png)


def trim(run: Path, clock: int) -> None:
    """Remove the grids beyond `clock`, and what a killed start left half-written; other files stay."""
    for path in (run / FOLDER).glob("*/*"):
        stamp = path.name.removesuffix(".png")
        beyond = len(stamp) == DIGITS and stamp.isascii() and stamp.isdigit() and int(stamp) > clock
        half = path.name.startswith(".") and path.suffix == ".tmp"
        if half or (beyond and path.suffix == ".png"):
            path.unlink(missing_ok=True)
