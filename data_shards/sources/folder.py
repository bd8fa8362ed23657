"""A folder of identity (or class) folders, the most common layout: SRC/<identity>/**/<picture>."""

import os
from collections.abc import Iterator
from pathlib import Path

from data_shards.source import FileSource, Sample, folders_of, stem, walk

OPTIONS: dict[str, object] = {}


class Folder(FileSource):
    name = "folder"
    licence = "unknown: stated by nobody; check the terms of the pictures before you share them"

    def samples(self) -> Iterator[Sample]:
        for identity in folders_of(self.root):
            for path, num_bytes in walk(self.root, identity):
                yield Sample(path, identity, stem(os.path.relpath(path, identity)), num_bytes)
        for entry in sorted(os.scandir(self.root), key=lambda entry: entry.name):
            if not entry.is_dir():
                yield Sample(entry.name, "", stem(entry.name))


def source(src: str, split: str) -> Folder:
    del split  # one folder is one split
    folders_of(src)
    return Folder(Path(src))
