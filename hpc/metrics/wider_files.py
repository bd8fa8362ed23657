"""The files of WIDER FACE's evaluation: the official .mat files of the truth, and text files of detections.

Detections of an image are in `event/name.txt`: the name, how many there are, and a line for each: x, y,
width, height, score. The protocol that judges them: `wider.py`.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_shards.errors import UserError
from data_shards.files import FileError, read_bytes, read_text, write_bytes
from data_shards.ragged import Ragged
from hpc.metrics.wider import SETTINGS, Faces

LARGEST = 64 << 20  # bytes of a file
LABELS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
PLACES = ("", "ground_truth", "eval_tools/ground_truth")  # of the .mat files, below what was typed
TRUTH = "wider_face_val.mat"
ROW = "a line is x y width height score"


def read_faces(folder: Path) -> Faces:
    """Read wider_face_val.mat and the three settings' files. UserError where one is missing or damaged."""
    at = next((folder / place for place in PLACES if (folder / place / TRUTH).is_file()), None)
    if at is None:
        raise UserError(
            f"ground_truth={folder} holds no {TRUTH}: give the folder ground_truth of the official eval_tools"
        )
    truth = _Mat(at / TRUTH)
    events, files = truth.column("event_list"), truth.column("file_list")
    names, boxes, labels = [], [], {name: [] for name in LABELS}  # type: ignore[var-annotated]
    stored = {name: truth.column(f"{name}_label_list", len(events)) for name in LABELS}
    pictures = truth.column("face_bbx_list", len(events))
    for row, event in enumerate(events):
        stems = truth.cells(files[row])
        names += [f"{truth.text(event)}/{truth.text(stem)}" for stem in stems]
        own = truth.numbers(pictures[row], len(stems), columns=4)
        boxes += own
        for name in LABELS:
            each = truth.numbers(stored[name][row], len(stems), columns=1)
            if [len(part) for part in each] != [len(part) for part in own]:
                raise truth.damaged(f"{name}_label_list has other counts than face_bbx_list")
            labels[name] += [part[:, 0] for part in each]
    if not names or len(set(names)) != len(names):
        raise truth.damaged("names no images, or one twice")
    counts = np.array([len(part) for part in boxes])
    kept = {setting: _kept(at / f"wider_{setting}_val.mat", names, counts) for setting in SETTINGS}
    found = {name: np.concatenate(parts).astype(np.int8) for name, parts in labels.items()}
    return Faces(names, Ragged.of_lists([torch.from_numpy(part) for part in boxes]), kept, found)


def _kept(path: Path, names: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """Return which faces a setting keeps, bool [m]: those whose numbers, from 1, the file lists."""
    file = _Mat(path)
    events, files = file.column("event_list"), file.column("file_list")
    listed, own = [], []
    for row, (event, rows) in enumerate(zip(events, file.column("gt_list", len(events)), strict=True)):
        stems = file.cells(files[row])
        own += [f"{file.text(event)}/{file.text(stem)}" for stem in stems]
        listed += file.numbers(rows, len(stems), columns=1)
    if own != list(names):
        raise file.damaged(f"its images are not those of {TRUTH}")
    kept = np.zeros(int(counts.sum()), bool)
    for start, count, numbers in zip(np.cumsum(counts) - counts, counts, listed, strict=True):
        rows = numbers[:, 0]
        if len(rows) and not (rows.min() >= 1 and rows.max() <= count and (rows == np.rint(rows)).all()):
            raise file.damaged("keeps a face that its image does not have")
        kept[start + rows.astype(np.int64) - 1] = True
    return kept


class _Mat:
    """A .mat file of cells of cells; what is not as the official one is damaged."""

    def __init__(self, path: Path) -> None:
        from io import BytesIO

        from scipy.io import loadmat

        self.path = path
        data = read_bytes(path, limit=LARGEST, remedy=f"unpack the official eval_tools to {path.parent}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self._content = loadmat(BytesIO(data))
        except Exception as error:  # scipy raises what its parsers happen to meet
            raise self.damaged(f"{type(error).__name__}: {error}"[:100]) from None

    def damaged(self, what: str) -> FileError:
        return FileError(f"{self.path} is not as the official one ({what}): unpack it again")

    def column(self, name: str, length: int | None = None) -> list[Any]:
        """The cells of a variable, which are `length`."""
        if name not in self._content:
            raise self.damaged(f"has no {name}")
        cells = self.cells(self._content[name])
        if length is not None and len(cells) != length:
            raise self.damaged(f"{name} has {len(cells)} events, not {length}")
        return cells

    def cells(self, value: Any) -> list[Any]:
        if not isinstance(value, np.ndarray) or value.dtype != object:
            raise self.damaged("cells are missing")
        return list(value.ravel())

    def text(self, value: Any) -> str:
        """A name; one that leads out of its folder is none."""
        found = str(value.ravel()[0]) if isinstance(value, np.ndarray) and value.size else ""
        if not found.isprintable() or "/" in found or found in ("", ".", ".."):
            raise self.damaged(f"a name is {found!r:.40}")
        return found

    def numbers(self, value: Any, length: int, *, columns: int) -> list[np.ndarray]:
        """A cell for each of `length` images: float64 [k, columns]."""
        cells = self.cells(value)
        if len(cells) != length or not all(
            isinstance(cell, np.ndarray)
            and cell.dtype.kind in "iuf"
            and (not cell.size or cell.shape[-1] == columns)
            and np.isfinite(cell).all()
            for cell in cells
        ):
            raise self.damaged(f"an event of {length} images has other numbers")
        return [cell.astype(np.float64).reshape(-1, columns) for cell in cells]


def text_of(name: str, rows: np.ndarray) -> str:
    """Return the file of the image `event/name`; rows: [k, 5] x, y, width, height in pixels, score.

    Sides have 3 decimals, scores 9 digits, which tell all float32 numbers apart.
    """
    lines = [f"{x:.3f} {y:.3f} {width:.3f} {height:.3f} {score:.9g}" for x, y, width, height, score in rows]
    return "\n".join([name.rpartition("/")[2], str(len(rows)), *lines, ""])


def parse(text: str, *, where: str) -> np.ndarray:
    """Return the rows of a file, float64 [k, 5]. UserError, which says where it is wrong."""
    lines = text.split("\n")
    count = lines[1].strip() if len(lines) > 1 else ""
    if not (count.isascii() and count.isdigit()):
        raise FileError(f"{where}: line 2 is `{count[:40]}`, not how many detections there are: write it")
    rows = [line.split() for line in lines[2:] if line.strip()]
    if count == "0" and len(rows) == 1 and not np.any([part.strip("0.") for part in rows[0]]):
        rows = []  # the dummy line of an image without faces
    if len(rows) != int(count):
        raise FileError(f"{where}: line 2 says {count} detections, {len(rows)} follow: correct one of them")
    wrong = next((number for number, row in enumerate(rows) if len(row) != 5), None)
    try:
        found = np.array(rows if wrong is None else rows[:wrong], np.float64).reshape(-1, 5)
    except ValueError:
        wrong = next(number for number, row in enumerate(rows) if not all(map(_is_number, row)))
        found = np.zeros((0, 5))
    if wrong is None and not np.isfinite(found).all():
        wrong = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
    if wrong is not None:
        raise FileError(f"{where}: line {wrong + 3} is `{' '.join(rows[wrong])[:60]}`: {ROW}, all numbers")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_text(folder: Path, name: str, text: str) -> None:
    """Write the file of the image `event/name` below `folder`; text: of `text_of`."""
    path = folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def read_detections(folder: Path, names: Sequence[str]) -> tuple[Ragged, np.ndarray]:
    """Read the files of the images `names`: rows float64 [k, 5], and which have a file, bool [n].

    A file that is not in the folder of its event is found by its own name, which no other image has.
    """
    by_name = {path.name: path for path in _texts(folder)}
    found, there = [], np.zeros(len(names), bool)
    for number, name in enumerate(names):
        path = folder / f"{name}.txt"
        path = path if path.is_file() else by_name.get(path.name, path)
        there[number] = path.is_file()
        text = read_text(path, limit=LARGEST, remedy=f"write it again: {ROW}") if there[number] else "\n0"
        found.append(torch.from_numpy(parse(text, where=str(path))))
    return Ragged.of_lists(found), there


def others(folder: Path, names: Iterable[str]) -> list[str]:
    """List the text files below `folder` that belong to none of the images `names`."""
    known = {f"{name.rpartition('/')[2]}.txt" for name in names}
    return sorted(path.relative_to(folder).as_posix() for path in _texts(folder) if path.name not in known)


def _texts(folder: Path) -> list[Path]:
    """List the text files of images, each in one folder below `folder`."""
    return sorted(folder.glob("*/*.txt"))
