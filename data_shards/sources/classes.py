"""A folder of class folders: SRC/<class>/**/<image>, or SRC/<split>/<class>/**/<image> for official splits.

A class is a label, not a person: each image is an identity of its own, so images of a class may be in all
sets, and lie shuffled by the hash of their paths. Numbers are places in the sorted names of the classes.
"""

import os
from collections.abc import Iterator

from data_shards.errors import UserError
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.folder import SPLITS
from data_shards.sources.walk import Walk, is_folder

OPTIONS: dict[str, object] = {}


class Classes(FileSource):
    """The images of class folders, with the label `class`."""

    licence = "not stated by the source: check the terms of the pictures before you share them"
    cls = "class"
    cluster = False

    def __init__(self, root: str, folders: dict[str, tuple[str, str]]) -> None:
        """folders: {folder below root: (official split or "", class)}."""
        super().__init__(root)
        self.name = os.path.basename(os.path.abspath(root)) or "classes"
        self.folders = folders
        self.names = tuple(sorted({name for _, name in folders.values()}))
        self.fields = {"class": Field("class", "i4", names=tuple(map(visible, self.names)), unknown=None)}

    def samples(self) -> Iterator[Sample]:
        for parent in sorted({os.path.dirname(folder) for folder in self.folders} | {""}):
            for entry in sorted(os.scandir(os.path.join(self.root, parent)), key=lambda entry: entry.name):
                if not is_folder(entry):
                    path = os.path.join(parent, entry.name)
                    yield Sample(path, path, stem(entry.name), unfit="lies beside the class folders")
        walk = Walk(self.root)
        for folder, (split, name) in self.folders.items():
            number = self.names.index(name)
            for path, num_bytes, unfit in walk.below(folder):
                key = stem(os.path.basename(path))
                yield Sample(path, path, key, num_bytes, (number,), unfit=unfit, split=split)


def source(src: str, *, split: str) -> Classes:
    """Open src, the folder of the classes or of the splits. Raises UserError for fewer than two classes."""
    del split  # all official splits are packed, each into its own set
    names = folders_of(src)
    if all(name.lower() in SPLITS for name in names):
        places = {
            f"{part}/{name}": (part, name) for part in names for name in folders_of(os.path.join(src, part))
        }
    else:
        places = {name: ("", name) for name in names}
    if len({name for _, name in places.values()}) < 2:
        raise UserError(
            f"src={src}: holds only one class; give the folder that has one folder for each class"
        )
    return Classes(src, places)
