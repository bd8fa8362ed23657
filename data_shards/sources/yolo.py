"""Text labels of YOLO: pictures in `images` and, of the same names, labels in `labels` beside it.

    SRC/images/[train|val|test/]**/x.jpg    SRC/labels/[train|val|test/]**/x.txt      or
    SRC/train/images/x.jpg                  SRC/train/labels/x.txt
    SRC/data.yaml                           the names of the classes, where it is there

Rows: see `yolo_labels.py`. The folders of parts are official; without them a hash of the path divides. A
picture without a file of labels shows nothing, as the format has it: it is kept, and counted.
"""

import os
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.images.pixels import Rejected
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.boxes import FIVE_POINTS, IGNORE, Boxes, box_fields, picture_size, upright_size
from data_shards.sources.class_folders import PARTS, listed_words
from data_shards.sources.walk import Walk
from data_shards.sources.yolo_labels import TABLE, add_row, class_names, largest_class, read_rows

OPTIONS: dict[str, object] = {"classes": "", "partition": "auto", "points": 0}
HELP = {
    "classes": "names of the classes by number, such as [person,car] (empty = those of data.yaml)",
    "partition": "auto (folders train, val and test) | none (by a hash of the path)",
    "points": "5: x and y of eyes, nose and corners of the mouth, left first, follow each box; no polygons",
}
IMAGES, LABELS = "images", "labels"
UNLABELLED = "pictures without a file of labels, taken as empty"


class Yolo(FileSource):
    """The pictures of all parts, with their boxes."""

    licence = "not stated by the source: check the terms of the pictures before you share them"
    cls = None
    cluster = False

    def __init__(
        self, root: str, folders: list[str], names: list[str], *, official: bool, points: int = 0
    ) -> None:
        """folders: those of the pictures, below root. names: of the classes, by number. points: 0 or 5."""
        super().__init__(root)
        self.name = os.path.basename(os.path.abspath(root)) or "yolo"
        self.folders, self.names, self.official = folders, names, official
        self.points = points
        marks = FIVE_POINTS if points else ()
        self.fields: Mapping[str, Field | str] = {**box_fields(tuple(map(visible, names)), (IGNORE,), marks)}

    def samples(self) -> Iterator[Sample]:
        walk, used, found = Walk(self.root), dict[str, str](), False
        for folder in self.folders:
            for path, num_bytes, unfit in walk.below(folder):
                labels = _labels_of(path)
                if not unfit and labels in used:
                    unfit = f"has the labels of {used[labels]}"
                if unfit:
                    yield Sample(path, "", stem(os.path.basename(path)), num_bytes, unfit=unfit)
                    continue
                used[labels], found = path, True
                yield from self._samples(path, num_bytes, labels)
        for folder in self.folders:
            for path, num_bytes, unfit in walk.below(_labels_of(folder)):
                if path.endswith(".cache") or os.path.basename(path) == "classes.txt":
                    continue  # what training programs and label tools leave there
                if unfit or path not in used:
                    why = unfit or "there is no such picture"
                    yield Sample(path, "", "", num_bytes, unfit=why)
        if not found:
            raise UserError(f"src={self.root}: {' and '.join(self.folders)} hold no pictures; add them")

    def _samples(self, path: str, num_bytes: int, labels: str) -> Iterator[Sample]:
        """The sample of a picture, and those of its rows that are left out with their reasons."""
        name = stem(os.path.basename(path))
        try:
            size = upright_size(*picture_size(os.path.join(self.root, path)))
            rows = read_rows(os.path.join(self.root, labels))
        except (OSError, Rejected) as error:
            yield Sample(path, "", name, num_bytes, unfit=str(error))
            return
        boxes = Boxes(size, flags=1, points=self.points)
        for line, row in rows:
            if why := add_row(boxes, row, len(self.names)):
                yield Sample(f"{labels}:{line}", "", "", unfit=f"row {row!r:.60} {why}")
        mended = [*boxes.mended]
        if not os.path.exists(os.path.join(self.root, labels)):
            mended.append(UNLABELLED)
        part = _part(path) if self.official else ""
        yield Sample(path, "", name, num_bytes, boxes.labels(), split=part, mended=tuple(mended))


def _labels_of(path: str) -> str:
    """The labels of a picture or folder: the last `images` of its folders becomes `labels`."""
    parts = path.split("/")
    last = len(parts) - 1 - parts[::-1].index(IMAGES)
    parts[last] = LABELS
    return "/".join(parts) if last == len(parts) - 1 else f"{stem('/'.join(parts))}.txt"


def _part(path: str) -> str:
    """The official part of a picture ("" = none of its folders is one)."""
    return next((PARTS[name.lower()] for name in path.split("/")[:-1] if name.lower() in PARTS), "")


def source(src: str, *, split: str, classes: str = "", partition: str = "auto", points: int = 0) -> Yolo:
    """Open src, the folder that holds `images` and `labels`, or one of each in folders of parts."""
    del split  # all parts are packed, each into its own set
    if points not in (0, len(FIVE_POINTS)):
        raise UserError(f"points={points}: type {len(FIVE_POINTS)}, the landmarks of faces, or leave it out")
    if partition not in ("auto", "none"):
        raise UserError(f"partition={partition}: type auto or none")
    there = folders_of(src)
    if IMAGES in there:
        folders = [IMAGES]
    else:
        folders = [f"{name}/{IMAGES}" for name in there if name.lower() in PARTS]
        folders = [folder for folder in folders if os.path.isdir(os.path.join(src, folder))]
    if not folders:
        raise UserError(f"src={src}: has no folder {IMAGES}, nor train/{IMAGES}; give the folder above them")
    for folder in folders:
        if not os.path.isdir(os.path.join(src, _labels_of(folder))):
            raise UserError(f"src={src}: has {folder}, but no {_labels_of(folder)}; add it")
    names = listed_words(classes)
    if len(set(names)) < len(names):
        raise UserError(f"classes={classes}: names a class twice; type each once")
    if not names:
        names = _names(src, folders)
    return Yolo(src, folders, names, official=partition == "auto", points=points)


def _names(src: str, folders: list[str]) -> list[str]:
    """The names of data.yaml, or else numbers up to the largest class of all labels."""
    table = os.path.join(src, TABLE)
    if os.path.isfile(table):
        return class_names(table)
    paths = [
        os.path.join(src, file.path) for folder in folders for file in Walk(src).below(_labels_of(folder))
    ]
    count = 1 + largest_class([path for path in paths if path.endswith(".txt")])
    if not count:
        raise UserError(
            f"src={src}: has no {TABLE} and no label; type classes= with the names of the classes"
        )
    return [str(number) for number in range(count)]
