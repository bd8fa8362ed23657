"""CelebA (Liu, Luo, Wang and Tang, ICCV 2015): pictures of celebrities with 40 attributes each.

    SRC/Img/img_align_celeba/000001.jpg    or img_celeba/ (in the wild), or img_align_celeba_half*/
    SRC/Anno/list_attr_celeba.txt          the number of pictures, the names, then -1 or 1 for each
    SRC/Anno/identity_CelebA.txt           the person of each picture, where the file is there
    SRC/Eval/list_eval_partition.txt       0 train, 1 val, 2 test: official, and divided by person

Folders and lists may also be in SRC itself. Where the identities are known, a person is never divided.
"""

import os
from collections.abc import Iterator, Mapping

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.celeba_lists import Attributes, read_attributes, read_numbers
from data_shards.sources.walk import Walk

OPTIONS: dict[str, object] = {
    "images": "",
    "partition": "auto",
}
HELP = {
    "images": "aligned | half | wild, or a folder in SRC (empty = the first of them that is there)",
    "partition": "auto (official where the list is there) | official | none (by the hash of the person)",
}
PARTS = ("train", "val", "test")
LISTS = ("list_attr_celeba", "identity_CelebA", "list_eval_partition")
PLACES = ("", "Anno", "Eval", "Img")
FOLDERS = {"aligned": "img_align_celeba", "half": "img_align_celeba_half", "wild": "img_celeba"}


class CelebA(FileSource):
    """The pictures of one folder, with what the lists say of them."""

    name = "celeba"
    licence = "non-commercial research only; the photographs belong to their owners (MMLAB, CUHK)"

    def __init__(
        self,
        root: str,
        folder: str,
        attributes: Attributes,
        *,
        people: dict[str, int] | None = None,
        parts: dict[str, int] | None = None,
    ) -> None:
        """folder: of the pictures, below root. people, parts: {picture without suffix: its number}."""
        super().__init__(root)
        self.folder, self.attributes, self.people, self.parts = folder, attributes, people, parts
        self.cluster = people is not None
        names = attributes.names
        bits = Field("bits", "i1", (len(names),), names, unknown=None)
        fields: dict[str, Field | str] = {"attributes": bits}
        if "Male" in names:
            fields["gender"] = Field("class", "i4", names=("man", "woman"))
        if "Young" in names:
            fields["young"] = Field("class", "i4", names=("old", "young"))
        self.fields: Mapping[str, Field | str] = fields
        self.cls = "identity" if people is not None else "gender" if "gender" in fields else None

    def __getstate__(self) -> dict[str, object]:
        """Workers only read files, so the lists of all pictures are not sent to them."""
        return {"root": self.root}

    def samples(self) -> Iterator[Sample]:
        first: dict[str, str] = {}  # {picture without suffix: path}
        unfits: set[str] = set()
        for path, num_bytes, unfit in Walk(self.root).below(self.folder):
            name = stem(os.path.basename(path))
            unfit = unfit or self._fault(name, first.get(name, ""))
            if unfit:
                unfits.add(name)
                yield Sample(path, "", name, num_bytes, unfit=unfit)
                continue
            first[name] = path
            yield self._sample(path, name, num_bytes)
        if not first:
            raise UserError(
                f"src={self.root}: {self.folder or 'it'} holds none of the {len(self.attributes.rows)} "
                "pictures of list_attr_celeba; give the folder that holds Img and Anno, or another images="
            )
        for name in dict.fromkeys([*self.attributes.rows, *(self.parts or ())]):
            if name not in first and name not in unfits:
                lists = [LISTS[0]] * (name in self.attributes.rows)
                lists += [LISTS[2]] * (self.parts is not None and name in self.parts)
                why = f"is named in {' and '.join(lists)}, but there is no such picture"
                yield Sample(os.path.join(self.folder, f"{name}.jpg"), "", name, unfit=why)

    def _sample(self, path: str, name: str, num_bytes: int) -> Sample:
        bits = self.attributes.bits[self.attributes.rows[name]]
        labels: tuple[np.ndarray | int, ...] = (bits,)
        if "gender" in self.fields:
            labels += (1 - int(bits[self.attributes.names.index("Male")]),)
        if "young" in self.fields:
            labels += (int(bits[self.attributes.names.index("Young")]),)
        person = "" if self.people is None or name not in self.people else str(self.people[name])
        part = PARTS[self.parts[name]] if self.parts is not None else ""
        return Sample(path, person, name, num_bytes, labels, split=part)

    def _fault(self, name: str, first: str) -> str:
        """Why a picture cannot be packed ("" = it can); first: another picture of its name."""
        if name not in self.attributes.rows:
            return f"has no row in {LISTS[0]}"
        if self.parts is not None and name not in self.parts:
            return f"has no row in {LISTS[2]}"
        return f"has the name of {first}" if first else ""


def source(src: str, *, split: str, images: str = "", partition: str = "auto") -> CelebA:
    """Open src, the folder that holds Img, Anno and Eval, or their contents. Raises UserError."""
    del split  # all parts are packed, each into its own set
    if partition not in ("auto", "official", "none"):
        raise UserError(f"partition={partition}: type auto, official or none")
    folders_of(src)
    folder = _folder(src, images)
    lists = {name: _list(src, name) for name in LISTS}
    if not lists["list_attr_celeba"]:
        raise UserError(f"src={src}: has no list_attr_celeba.txt, nor Anno/list_attr_celeba.txt; add it")
    if partition == "official" and not lists["list_eval_partition"]:
        raise UserError(f"partition=official: {src} has no Eval/list_eval_partition.txt; add it or type none")
    people, parts = lists["identity_CelebA"], lists["list_eval_partition"] if partition != "none" else ""
    return CelebA(
        src,
        folder,
        read_attributes(lists["list_attr_celeba"]),
        people=read_numbers(people, most=10**9) if people else None,
        parts=read_numbers(parts, most=len(PARTS) - 1) if parts else None,
    )


def _folder(src: str, images: str) -> str:
    """The folder of the pictures, below src. Raises UserError if there is none."""
    if images and images not in FOLDERS:
        for place in ("", "Img"):
            if os.path.isdir(os.path.join(src, place, images)):
                return os.path.join(place, images)
        raise UserError(
            f"images={images}: {src} has no such folder; type {', '.join(FOLDERS)} or a folder in it"
        )
    for word in [images] if images else FOLDERS:
        for place in ("", "Img"):
            inner = folders_of(os.path.join(src, place)) if os.path.isdir(os.path.join(src, place)) else []
            prefix = FOLDERS[word]
            fits = [name for name in inner if name in (prefix, f"{prefix}_png")]
            fits += [name for name in inner if word == "half" and name.startswith(prefix)]
            if fits:
                return os.path.join(place, fits[0])
    raise UserError(
        f"src={src}: has no folder {' or '.join([FOLDERS[images]] if images else FOLDERS.values())}, "
        "nor one in Img; give the folder that holds it, or type images=FOLDER"
    )


def _list(src: str, name: str) -> str:
    """The path of a list, as published or as csv ("" = it is not there)."""
    paths = [os.path.join(src, place, f"{name}.{ending}") for ending in ("txt", "csv") for place in PLACES]
    return next(filter(os.path.isfile, paths), "")
