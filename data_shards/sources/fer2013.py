"""FER2013 (Goodfellow et al., ICONIP 2013): grey faces of 48 x 48 pixels with one of seven emotions.

    SRC/fer2013.csv, or SRC itself a csv       emotion 0 to 6, 2,304 pixels, Usage
    SRC/[train|test/]<class>/<image>           as others have written them out

Official parts: Training is train, PublicTest val, PrivateTest test; of written images they are in the names
of the files (`PublicTest_123.jpg`), or else in the folders. Without them equal faces are one group.

`extra=bored:FOLDER` adds a class of further pictures: the largest face of each, cut as `faces_from.py` does.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.images.normalize import pixels
from data_shards.images.pixels import square
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, netpbm, read_file, stem, walk
from data_shards.sources.class_folders import check_partition, chosen_classes, class_files, listed_words
from data_shards.sources.faces_from import check_margin, face_of, in_grey, stored_bytes
from data_shards.sources.fer2013_csv import SIDE, USAGES, FerTable

OPTIONS: dict[str, object] = {
    "classes": "",
    "extra": "",
    "extra_crop": "faces",
    "margin": 0.0,
    "partition": "auto",
}
HELP = {
    "classes": "some of the classes, numbered as typed, such as [happy,neutral]",
    "extra": "further classes from folders of pictures: bored:FOLDER or [bored:FOLDER,calm:FOLDER]",
    "extra_crop": "faces (the largest of each of these pictures) | none (they show only a face)",
    "margin": "around these faces, as a share of their side",
    "partition": "auto (official where it is stated) | official | none (by a hash)",
}
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # 0 to 6 in the published csv
TABLES = ("fer2013.csv", "icml_face_data.csv")
STORED = 1600  # bytes of a stored face, about
SHARES = ((0.8, "train"), (0.9, "val"), (1.0, "test"))  # of the official parts
_OTHER_NAMES = {"anger": 0, "disgusted": 1, "fearful": 2, "happiness": 3, "sadness": 4, "surprised": 5}
_FOLDERS = _OTHER_NAMES | {name: n for n, each in enumerate(CLASSES) for name in (each, str(n))}


class Fer2013(FileSource):
    """The faces of a csv or of class folders, and those of the extra classes."""

    name = "fer2013"
    licence = "Open Database License (the challenge's page); the photographs belong to their owners"
    cls = "emotion"
    cluster = False

    def __init__(
        self,
        root: str,
        *,
        table: FerTable | None,
        classes: list[str],
        extra: dict[str, str],
        cut: bool,
        margin: float,
        partition: str,
    ) -> None:
        """table: of the csv (None = class folders). extra: {class: folder}. cut: find the faces of extra."""
        super().__init__(root)
        self.table, self.classes, self.extra, self.cut, self.margin = table, classes, extra, cut, margin
        self.partition = partition
        names = tuple(map(visible, [*classes, *extra]))
        self.fields: Mapping[str, Field | str] = {"emotion": Field("class", "i4", names=names, unknown=None)}

    def samples(self) -> Iterator[Sample]:
        official = 0
        for sample in self._table() if self.table else self._files():
            official += sample.split != ""
            if sample.unfit:
                yield sample
            elif (name := CLASSES[sample.labels[0]]) in self.classes:
                yield sample._replace(labels=(self.classes.index(name),))
        if self.partition == "official" and not official:
            raise UserError(f"partition=official: {self.root} states no official part; type partition=none")
        for name, folder in self.extra.items():
            yield from self._pictures(name, folder, official=official > 0)

    def _table(self) -> Iterator[Sample]:
        assert self.table
        name = os.path.basename(self.table.path)
        for row in self.table:
            part = row.part if self.partition != "none" else ""
            path, key = f"{name}:{row.line}", f"{row.line:06d}"
            group = "" if part or row.unfit else row.digest
            yield Sample(path, "", key, STORED, (row.emotion,), unfit=row.unfit, split=part, group=group)

    def _files(self) -> Iterator[Sample]:
        for path, num_bytes, number, folder, _, unfit in class_files(self.root, _FOLDERS):
            key = stem(os.path.basename(path))
            part = USAGES.get(key.partition("_")[0].lower(), folder) if self.partition != "none" else ""
            yield Sample(path, "", key, num_bytes, (number,), unfit=unfit, split=part)

    def _pictures(self, name: str, folder: str, *, official: bool) -> Iterator[Sample]:
        """The pictures of an extra class; where faces have official parts, by a hash in their shares."""
        number = len(self.classes) + list(self.extra).index(name)
        for path, num_bytes, unfit in walk(folder):
            part = ""
            if official:
                place = int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "big") / 2**64
                part = next(part for limit, part in SHARES if place < limit)
            key = stem(os.path.basename(path))
            weight = stored_bytes(num_bytes, SIDE)
            yield Sample(f"{name}:{path}", "", key, weight, (number,), unfit=unfit, split=part)

    def read(self, sample: Sample) -> bytes:
        name, colon, path = sample.path.partition(":")
        if colon and name in self.extra:
            data = read_file(os.path.join(self.extra[name], path))
            if self.cut:
                return face_of(data, size=SIDE, margin=self.margin)
            return netpbm(square(in_grey(pixels(data)), SIDE))
        return self.table.read(int(path)) if self.table else super().read(sample)


def source(
    src: str,
    *,
    split: str,
    classes: str = "",
    extra: str = "",
    extra_crop: str = "faces",
    margin: float = 0.0,
    partition: str = "auto",
) -> Fer2013:
    """Open src, the csv, its folder, or that of the class folders. Raises UserError."""
    del split  # all official parts are packed, each into its own set
    check_partition(partition)
    check_margin(margin)
    if extra_crop not in ("faces", "none"):
        raise UserError(f"extra_crop={extra_crop}: type faces, or none for pictures that are faces already")
    chosen = chosen_classes(classes, CLASSES)
    table = src if os.path.isfile(src) else _table_in(src)
    if table and not os.path.isfile(src) and any(file.number >= 0 for file in class_files(src, _FOLDERS)):
        raise UserError(
            f"src={src}: has {os.path.basename(table)} and class folders too: type src={table}, or src= a "
            "folder that holds the class folders alone"
        )
    if not table and not any(file.number >= 0 for file in class_files(src, _FOLDERS)):
        raise UserError(f"src={src}: has no {TABLES[0]} and no folders {', '.join(CLASSES)} with images")
    return Fer2013(
        src if not os.path.isfile(src) else os.path.dirname(os.path.abspath(src)),
        table=FerTable(table) if table else None,
        classes=chosen,
        extra=_extra_folders(extra, chosen),
        cut=extra_crop == "faces",
        margin=margin,
        partition=partition,
    )


def _table_in(src: str) -> str:
    """The path of the csv in the folder src ("" = it has none). Raises UserError where there is no folder."""
    paths = [os.path.join(src, name) for name in TABLES]
    found = next(filter(os.path.isfile, paths), "")
    if not found:
        folders_of(src)
    return found


def _extra_folders(text: str, classes: list[str]) -> dict[str, str]:
    """{class: folder} of `extra=`. Raises UserError."""
    folders: dict[str, str] = {}
    for word in listed_words(text):
        name, _, folder = word.partition(":")
        if not name or not os.path.isdir(folder):
            raise UserError(f"extra={word}: {folder or 'it'} is not a folder; type extra=CLASS:FOLDER")
        if name in folders or name in CLASSES:
            raise UserError(f"extra={word}: there is a class {name} already; type another name")
        folders[name] = os.path.abspath(folder)
    return folders
