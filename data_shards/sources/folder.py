"""A folder of identity (or class) folders, the most common layout: SRC/<identity>/**/<image>."""

import os
import re
from collections.abc import Iterator

from data_shards.errors import UserError
from data_shards.shard_format.keys import visible
from data_shards.sources.base import FileSource, Sample, folders_of
from data_shards.sources.lfw import FOLDERS as LFW

OPTIONS: dict[str, object] = {}
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval"}
_VGGFACE2 = re.compile(r"n\d{6}")


class Folder(FileSource):
    """The files of a folder; its folders are the identities."""

    licence = "not stated by the source: check the terms of the pictures before you share them"

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.name = os.path.basename(os.path.abspath(root)) or "folder"

    def samples(self) -> Iterator[Sample]:
        people: set[str] = set()
        for sample in super().samples():
            if not sample.unfit:
                people.add(sample.identity)
            yield sample
        if len(people) == 1:
            raise UserError(
                f"src={self.root}: all its images are in one folder, {visible(people.pop())!r}: {REMEDY}"
            )


REMEDY = "give the folder that has one folder for each identity or class, SRC/<identity>/<image>"


def source(src: str, *, split: str) -> Folder:
    """Open src, the folder of the identities. Raises UserError for another layout, or one level too high."""
    names = folders_of(src)
    if archive := next((name for name in LFW if name in names), ""):
        raise UserError(f"src={src}: holds {archive}, LFW as unpacked: type source=lfw")
    inner = {name: _folders(os.path.join(src, name)) for name in _splits(names)}
    if inner and all(inner.values()):
        first = next(iter(inner))
        if any(_VGGFACE2.fullmatch(name) for name in inner[first]):
            raise UserError(
                f"src={src}: holds {first}/{visible(inner[first][0])}, VGGFace2: "
                f"type source=vggface2 split={first}"
            )
        raise UserError(
            f"src={src}: its folders ({', '.join(map(visible, inner))}) hold folders, "
            f"and would be taken for people: type src={visible(os.path.join(src, first))}"
        )
    del split  # one folder is one split
    return Folder(src)


def _splits(names: list[str]) -> list[str]:
    """The folders that may be splits: the only one, or several of such names, whatever is beside them."""
    splits = [name for name in names if name.lower() in SPLITS]
    return names if len(names) == 1 else splits if len(splits) > 1 or splits == names else []


def _folders(folder: str) -> list[str]:
    try:
        return folders_of(folder)
    except UserError:
        return []
