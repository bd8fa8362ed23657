"""AffectNet (Mollahosseini, Hasani and Mahoor, TAC 2017): faces with one of eight emotions.

    SRC/[train|val/]<class>/**/<image>                     folders by name, or by number 0 to 7
    SRC/train_set/{images/1.jpg,annotations/1_exp.npy}     as given out since 2021, val_set beside it
    SRC/training.csv, validation.csv                       as first published, beside the images

A table may be any csv with columns for the path and the emotion. Emotions in tables and annotations are
names, or the numbers of the authors (0 neutral to 7 contempt); 8 to 10 are not emotions. Their training part
is train, validation is val.
"""

import os
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from data_shards.sources.affectnet_lists import Row, annotated, read_table
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.class_folders import check_partition, chosen_classes, class_files

OPTIONS: dict[str, object] = {"classes": "", "numbers": "sorted", "crop": False, "partition": "auto"}
HELP = {
    "classes": "some of the classes, numbered as typed, such as [happy,neutral]",
    "numbers": "what folders 0 to 7 mean: sorted (0 anger, 1 contempt) | published (0 neutral, 1 happy)",
    "crop": "cut the boxes of the faces that the table states",
    "partition": "auto (official where it is stated) | official | none (by the hash of the path)",
}
CLASSES = ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")  # 0 to 7
PUBLISHED = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
OTHER_NAMES = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
NO_EMOTION = {8: "none", 9: "uncertain", 10: "no face"}  # the authors' further numbers
UNKNOWN = -2.0  # valence and arousal that the table does not state, as published


class AffectNet(FileSource):
    """The faces of class folders, annotated folders or tables, with the label `emotion`."""

    name = "affectnet"
    licence = "research only, by agreement with its authors; the photographs belong to their owners"
    cls = "emotion"
    cluster = False

    def __init__(
        self,
        root: str,
        rows: list[Row] | None,
        classes: list[str],
        *,
        crop: bool,
        published: bool,
        partition: str,
    ) -> None:
        """rows: of tables or annotations (None = class folders). published: what numbered folders mean."""
        super().__init__(root)
        self.rows, self.classes, self.crop, self.partition = rows, classes, crop, partition
        self.numbers = _folder_numbers(published=published)
        self.fields: Mapping[str, Field | str] = {
            "emotion": Field("class", "i4", names=tuple(classes), unknown=None)
        }
        self.moods = any(row.valence is not None for row in rows or ())
        if self.moods:
            self.fields |= {name: Field("value", "f4", unknown=UNKNOWN) for name in ("valence", "arousal")}

    def __getstate__(self) -> dict[str, object]:
        """Workers only read files, so the rows are not sent to them."""
        return {"root": self.root}

    def samples(self) -> Iterator[Sample]:
        official = False
        for sample in self._folders() if self.rows is None else self._rows(self.rows):
            official = official or sample.split != ""
            if sample.unfit:
                yield sample
            elif (name := CLASSES[sample.labels[0]]) in self.classes:
                part = "" if self.partition == "none" else sample.split
                labels = (self.classes.index(name), *sample.labels[1:])
                yield sample._replace(labels=labels, split=part)
        if self.partition == "official" and not official:
            raise UserError(f"partition=official: {self.root} states no official part; type partition=none")

    def _folders(self) -> Iterator[Sample]:
        for path, num_bytes, number, part, _, unfit in class_files(self.root, self.numbers):
            yield Sample(
                path, "", stem(os.path.basename(path)), num_bytes, (number,), unfit=unfit, split=part
            )

    def _rows(self, rows: list[Row]) -> Iterator[Sample]:
        met: set[str] = set()
        for row in rows:
            number, unfit = _number(row.emotion)
            name = stem(os.path.basename(row.path))
            if row.path in met:
                unfit = "is in the table twice"
            met.add(row.path)
            if row.fault or unfit:
                yield Sample(row.path, "", name, unfit=row.fault or unfit)
                continue
            labels: tuple[float, ...] = (number,)
            if self.moods:
                labels += tuple(UNKNOWN if each is None else each for each in (row.valence, row.arousal))
            crop = row.box if self.crop else None
            unfit = "has no box of its face in the table" if self.crop and not crop else ""
            yield Sample(row.path, "", name, row.num_bytes, labels, crop=crop, unfit=unfit, split=row.part)


def _folder_numbers(*, published: bool) -> dict[str, int]:
    """{folder in small letters: number of its class}"""
    named = {name: number for number, name in enumerate(CLASSES)}
    numbered = {str(number): named[name] for number, name in enumerate(PUBLISHED if published else CLASSES)}
    return named | numbered | {other: named[name] for other, name in OTHER_NAMES.items()}


def _number(emotion: str) -> tuple[int, str]:
    """(number of the class, "") of an emotion in a table, or (-1, why it is none)."""
    word = emotion.strip().lower()
    name = OTHER_NAMES.get(word, word)
    if name in CLASSES:
        return CLASSES.index(name), ""
    if word.isascii() and word.isdigit():
        number = int(word[:4])
        if number < len(PUBLISHED):
            return CLASSES.index(PUBLISHED[number]), ""
        if number in NO_EMOTION:
            return -1, f"its emotion is {number}, {NO_EMOTION[number]}"
    return -1, f"its emotion {emotion!r:.20} is not one of the eight"


def source(
    src: str,
    *,
    split: str,
    classes: str = "",
    numbers: str = "sorted",
    crop: bool = False,
    partition: str = "auto",
) -> AffectNet:
    """Open src: a table, or the folder of tables, annotated parts or classes. Raises UserError."""
    del split  # all official parts are packed, each into its own set
    check_partition(partition)
    if numbers not in ("sorted", "published"):
        raise UserError(
            f"numbers={numbers}: type sorted (folder 0 is anger) or published (folder 0 is neutral)"
        )
    chosen = chosen_classes(classes, CLASSES)
    root = src if not os.path.isfile(src) else os.path.dirname(os.path.abspath(src))
    tables = [src] if os.path.isfile(src) else _tables(src)
    rows: list[Row] | None = [row for table in tables for row in read_table(table, root)] or annotated(root)
    if not rows:
        rows = None
        known = _folder_numbers(published=False)
        if not any(file.number >= 0 for file in class_files(root, known)):
            raise UserError(
                f"src={src}: has no csv, no annotations and no folders {', '.join(CLASSES)} with images"
            )
    if crop and not any(row.box for row in rows or ()):
        raise UserError(f"crop=true: {src} has no table with the boxes of faces; leave crop out")
    return AffectNet(root, rows, chosen, crop=crop, published=numbers == "published", partition=partition)


def _tables(src: str) -> list[str]:
    """The csv files in the folder src, sorted. Raises UserError where there is no folder."""
    folders_of(src)
    return sorted(entry.path for entry in os.scandir(src) if entry.name.lower().endswith(".csv"))
