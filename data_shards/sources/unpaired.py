"""Two domains of pictures without partners, as CycleGAN reads them: one set with the class `domain`.

    SRC/trainA/**/<image>, SRC/trainB/...    and testA, testB, valA, valB: each split becomes a set
    SRC/A/**/<image>, SRC/B/...              or any two folders, by a=FOLDER b=FOLDER

Zhu et al., ICCV 2017, and the authors' data sets. A training names the sides by `data.order=unpaired
data.a='domain==0' data.b='domain==1'`.
"""

import os
from collections.abc import Iterator, Mapping

from data_shards.errors import UserError
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.class_folders import PARTS
from data_shards.sources.walk import Walk

OPTIONS: dict[str, object] = {
    "a": "",  # the folder of domain A below SRC ("" = trainA, testA ..., or A)
    "b": "",  # that of domain B
}
DOMAINS = ("a", "b")


class Unpaired(FileSource):
    """The pictures of the folders of both domains; each is a group of its own."""

    licence = "not stated by the source: check the terms of the pictures before you share them"
    fields: Mapping[str, Field | str] = {"domain": Field("class", "i4", names=DOMAINS, unknown=None)}
    cls = "domain"
    cluster = False

    def __init__(self, root: str, folders: dict[str, tuple[int, str]]) -> None:
        """folders: {folder below root: (number of its domain, official split or "")}."""
        super().__init__(root)
        self.name = os.path.basename(os.path.abspath(root)) or "unpaired"
        self.folders = folders

    def samples(self) -> Iterator[Sample]:
        walk = Walk(self.root)
        for folder, (number, part) in self.folders.items():
            empty = True
            for path, num_bytes, unfit in walk.below(folder):
                empty = empty and bool(unfit)
                name = stem(os.path.basename(path))
                yield Sample(path, "", name, num_bytes, (number,), unfit=unfit, split=part)
            if empty:
                raise UserError(
                    f"src={self.root}: {visible(folder)}, of domain {DOMAINS[number]}, holds no pictures; "
                    "fill it, or name another folder by a= and b="
                )


def source(src: str, *, split: str, a: str = "", b: str = "") -> Unpaired:
    """Open src, the folder that holds both domains. Raises UserError where they are not there."""
    del split  # all parts are packed, each into its own set
    names = folders_of(src)
    if a or b:
        return Unpaired(src, _named(src, names, a, b))
    folders = {}
    for name in names:
        part, letter = PARTS.get(name[:-1].lower(), ""), name[-1:].lower()
        if part and letter in DOMAINS:
            folders[name] = (DOMAINS.index(letter), part)
    folders = folders or {
        name: (DOMAINS.index(name.lower()), "") for name in names if name.lower() in DOMAINS
    }
    for part in sorted({part for _, part in folders.values()} | ({""} if not folders else set())):
        have = sorted(number for number, of in folders.values() if of == part)
        if have != [0, 1]:
            which = f" of {part}" if part else ""
            raise UserError(
                f"src={src}: holds {', '.join(map(visible, names))}, not two domains{which}: give trainA and "
                "trainB, or A and B, or type a=FOLDER b=FOLDER"
            )
    return Unpaired(src, folders)


def _named(src: str, names: list[str], a: str, b: str) -> dict[str, tuple[int, str]]:
    """The folders of a= and b=. Raises UserError."""
    for key, folder in (("a", a), ("b", b)):
        if folder not in names:
            known = ", ".join(map(visible, names))
            raise UserError(f"{key}={folder}: {src} has no such folder; type one of {known}")
    if a == b:
        raise UserError(f"a={a} b={b}: are one folder; type the two domains")
    return {a: (0, ""), b: (1, "")}
