"""Files in folders of classes whose names and numbers a source fixes: SRC/[<split>/]<class>/**/<file>.

`classes.py` is for folders of any names, which are numbered by their order.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from data_shards.errors import UserError
from data_shards.shard_format.keys import visible
from data_shards.sources.base import walk

PARTITIONS = ("auto", "official", "none")
# The folders of official splits, and the sets that they become.
PARTS = {
    **dict.fromkeys(("train", "training", "train_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "val_set"), "val"),
    **dict.fromkeys(("test", "testing", "test_set"), "test"),
}


class ClassFile(NamedTuple):
    """A file below the folder of a class."""

    path: str  # relative to root
    num_bytes: int
    number: int  # of the class, -1 where it is unfit
    part: str  # the official split by the folders above that of the class ("" = none of them is one)
    inner: str  # the folder of the file below that of its class ("" = that itself)
    unfit: str


def class_files(root: str, numbers: Mapping[str, int]) -> Iterator[ClassFile]:
    """All files below root. numbers: {name of a class's folder, in small letters: its number}.

    The class is that of the first folder of a known name on the way to a file.
    """
    for path, num_bytes, unfit in walk(root):
        folders = os.path.dirname(path).lower().split("/")
        place = next((place for place, name in enumerate(folders) if name in numbers), -1)
        if place < 0:
            yield ClassFile(path, num_bytes, -1, "", "", unfit or "is in no folder of a known class")
            continue
        part = next((PARTS[name] for name in folders[:place] if name in PARTS), "")
        inner = "/".join(os.path.dirname(path).split("/")[place + 1 :])
        yield ClassFile(path, num_bytes, numbers[folders[place]], part, inner, unfit)


def check_partition(partition: str) -> None:
    """Raise UserError for another word than PARTITIONS."""
    if partition not in PARTITIONS:
        raise UserError(f"partition={partition}: type {', '.join(PARTITIONS[:-1])} or {PARTITIONS[-1]}")


def listed_words(text: str) -> list[str]:
    """The words of `[a,b]` or `a,b`."""
    words = text.strip().removeprefix("[").removesuffix("]").split(",")
    return [word.strip() for word in words if word.strip()]


def chosen_classes(text: str, names: Sequence[str]) -> list[str]:
    """The classes of `classes=`, all of `names` for an empty text. Raises UserError for an unknown one."""
    chosen = listed_words(text) or list(names)
    for name in chosen:
        if name not in names:
            known = ", ".join(names)
            raise UserError(f"classes={text}: {visible(name)} is not a class; type some of {known}")
    if len(set(chosen)) < len(chosen):
        raise UserError(f"classes={text}: names a class twice; type each once")
    return chosen
