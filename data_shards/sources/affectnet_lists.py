"""What AffectNet says of its images: csv tables as first published, and annotations beside the images.

Columns are found by their names; a table without a line of names has the published ones in their order.
"""

import csv
import io
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_shards.errors import UserError
from data_shards.sources.base import read_file, walk
from data_shards.sources.class_folders import PARTS

PUBLISHED = (
    "subdirectory_filepath face_x face_y face_width face_height facial_landmarks expression valence arousal"
)
PATHS = ("subdirectory_filepath", "pth", "path", "image", "filename", "file")
EMOTIONS = ("expression", "label", "emotion", "class")
PLACES = (
    "",
    "Manually_Annotated_Images",
    "Automatically_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
)


class Row(NamedTuple):
    """One image of a table."""

    path: str  # relative to the folder of the source
    num_bytes: int
    emotion: str  # a name or a number of the authors
    part: str  # train, val or test ("" = the table does not say)
    box: tuple[int, int, int, int] | None = None  # of the face: x, y, width, height
    valence: float | None = None  # -1 to 1
    arousal: float | None = None
    fault: str = ""


def read_table(path: str, root: str) -> Iterator[Row]:
    """The rows of a csv whose paths are in root. Raises UserError for a file that is no such table."""
    part = PARTS.get(os.path.splitext(os.path.basename(path))[0].lower(), "")
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            first = next(reader, [])
            names = [word.strip().lower() for word in first]
            published = PUBLISHED.split()
            headless = len(first) == len(published) and "/" in first[0] and not set(names) & set(published)
            if headless:
                names = published
            where = next((name for name in PATHS if name in names), "")
            what = next((name for name in EMOTIONS if name in names), "")
            if not where or not what:
                raise UserError(
                    f"{path} line 1: has no columns for path and emotion: {', '.join(published[::6])}"
                )
            for words in [first] * headless:
                yield _row(
                    dict(zip(names, words, strict=False)), len(words) == len(names), where, what, root, part
                )
            for words in reader:
                if words:
                    whole = len(words) == len(names)
                    yield _row(dict(zip(names, words, strict=False)), whole, where, what, root, part)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; restore the table") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a csv ({error}); restore the table") from None


def _row(values: dict[str, str], whole: bool, where: str, what: str, root: str, part: str) -> Row:
    path = values.get(where, "").strip().replace("\\", "/")
    row = Row(path, 0, values.get(what, ""), part)
    if not whole:
        return row._replace(fault="its row in the table is cut off or has too many columns")
    if not path or path.startswith("/") or ".." in path.split("/"):
        return row._replace(fault="its path in the table leads out of the folder")
    for place in PLACES:
        try:
            status = os.stat(os.path.join(root, place, path))
        except (OSError, ValueError):  # a name that no file can have
            continue
        row = row._replace(path=os.path.join(place, path), num_bytes=status.st_size)
        break
    else:
        return row._replace(fault="is in the table, but there is no such picture")
    try:
        corner = [int(float(values[name])) for name in ("face_x", "face_y", "face_width", "face_height")]
        if min(corner[2:]) > 0:
            row = row._replace(box=(corner[0], corner[1], corner[2], corner[3]))
    except (KeyError, ValueError, OverflowError):
        pass  # the table states no box
    return row._replace(valence=_mood(values.get("valence", "")), arousal=_mood(values.get("arousal", "")))


def _mood(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return float(np.float32(value)) if -1 <= value <= 1 else None


def annotated(root: str) -> list[Row]:
    """The images of [train_set|val_set/]images whose emotion is in annotations/<name>_exp.npy."""
    rows = []
    for path, num_bytes, unfit in walk(root) if _has_annotations(root) else ():
        folder, name = os.path.split(path)
        above, inner = os.path.split(folder)
        if inner != "images":
            continue
        part = PARTS.get(os.path.basename(above).lower(), "")
        emotion, fault = _annotation(os.path.join(root, above, "annotations", os.path.splitext(name)[0]))
        rows.append(Row(path, num_bytes, emotion, part, fault=unfit or fault))
    return rows


def _has_annotations(root: str) -> bool:
    places = [root, *(entry.path for entry in os.scandir(root) if entry.is_dir())]
    return any(os.path.isdir(os.path.join(place, "annotations")) for place in places)


def _annotation(path: str) -> tuple[str, str]:
    """(emotion, "") of an annotation, or ("", why there is none)."""
    try:
        value = np.load(io.BytesIO(read_file(f"{path}_exp.npy")), allow_pickle=False)
        return str(value.item())[:20], ""
    except FileNotFoundError:
        return "", "has no annotation _exp.npy"
    except (OSError, ValueError, EOFError):
        return "", "its annotation _exp.npy is damaged"
