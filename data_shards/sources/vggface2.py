"""VGGFace2 (Cao et al., FG 2018): <split>/n000001/0001_01.jpg, identity_meta.csv, <split>_list.txt, loose_bb.

If there is a list, it decides which files belong to the split. The label `gender` is the column of
identity_meta.csv: 0 female, 1 male, -1 not listed.
"""

import os
from collections.abc import Iterator

from data_shards.errors import UserError
from data_shards.sources.base import FileSource, Sample, folders_of

OPTIONS: dict[str, object] = {"crop": False}
HELP = {"crop": "cut the boxes of loose_bb_<split>.csv"}

PLACES = ("", "meta", "data", "bb_landmark")  # folders that may contain the lists and tables

Box = tuple[int, int, int, int]  # x, y, width, height in pixels


class VggFace2(FileSource):
    """The images of one split, with genders, and cut to boxes if they are given."""

    name = "vggface2"
    licence = "research only; no longer given out by its authors; the photographs belong to their owners"
    fields = {"gender": "i4"}  # noqa: RUF012  (as Source says; never changed)

    def __init__(
        self,
        root: str,
        *,
        genders: dict[str, int],
        listed: list[str] | None = None,
        boxes: dict[str, Box] | None = None,
    ) -> None:
        super().__init__(root)
        self.genders, self.listed, self.boxes = genders, listed, boxes

    def __getstate__(self) -> dict[str, object]:
        """Workers only read files, so the tables of all images are not sent to them."""
        return {"root": self.root}

    def samples(self) -> Iterator[Sample]:
        missing = dict.fromkeys(self.listed or ())
        for sample in super().samples():
            if self.listed is not None and not sample.unfit and sample.path not in missing:
                sample = sample._replace(unfit="is not in the list of the split")
            missing.pop(sample.path, None)
            yield sample
        for path in missing:  # reading one fails, and so reports it
            sample = self.sample(path.partition("/")[0], path, 0)
            if os.path.lexists(os.path.join(self.root, path)):
                sample = sample._replace(unfit="is in the list of the split by a path that is left out")
            yield sample

    def sample(self, identity: str, path: str, num_bytes: int) -> Sample:
        sample = super().sample(identity, path, num_bytes)
        sample = sample._replace(labels=(self.genders.get(identity, -1),))
        if self.boxes is not None:
            box = self.boxes.get(os.path.splitext(path)[0])
            sample = sample._replace(crop=box, unfit="" if box else "has no row in loose_bb")
        return sample


def source(src: str, *, split: str, crop: bool = False) -> VggFace2:
    """Open src, the folder that contains train/ and test/, or that of the identities. Raises UserError."""
    # The lists are beside the folder, and paths such as `test/` and `.` do not name the parent.
    src = root = os.path.abspath(src)
    for inner in (split, f"vggface2_{split}"):
        if inner in folders_of(root):
            root = os.path.join(root, inner)
    if not any(name.startswith("n") and name[1:].isdigit() for name in folders_of(root)):
        splits = [name for name in ("train", "test") if name in folders_of(src)]
        remedy = f"type split={splits[0]}" if splits else "give the folder that holds train/ or test/"
        raise UserError(f"src={src}: has no folders n000001, ... of split={split}; {remedy}")
    meta = _find(src, root, "identity_meta.csv")
    listing = _find(src, root, f"{split}_list.txt")
    boxes = _find(src, root, f"loose_bb_{split}.csv") if crop else None
    if crop and boxes is None:
        raise UserError(f"crop=true: {src} has no bb_landmark/loose_bb_{split}.csv; add it or leave crop out")
    return VggFace2(
        root,
        genders=read_genders(meta) if meta else {},
        listed=read_list(listing) if listing else None,
        boxes=read_boxes(boxes) if boxes else None,
    )


def _find(src: str, root: str, name: str) -> str | None:
    """The path of this file, wherever this copy of the set has it (None = nowhere)."""
    places = [os.path.join(folder, inner) for folder in (src, os.path.dirname(root)) for inner in PLACES]
    return next((path for place in places if os.path.isfile(path := os.path.join(place, name))), None)


def read_genders(path: str) -> dict[str, int]:
    """{class: gender} of identity_meta.csv, as published or as a spreadsheet saves it.

    The name in the second column may contain commas and has one to three layers of quotes; the class is the
    first column and the gender the last, whatever is between them.
    """
    genders = {}
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        separator = max(",;\t", key=file.readline().count)
        for line in file:
            columns = [column.strip(' "\r\n') for column in line.rstrip().rstrip(separator).split(separator)]
            genders[columns[0]] = {"f": 0, "m": 1}.get(columns[-1].lower(), -1)
    return genders


def read_list(path: str) -> list[str]:
    """The paths n000001/0001_01.jpg of a split, without repeats, in the order of the list."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:  # as Python reads file names
        return list(dict.fromkeys(line.strip().replace("\\", "/") for line in file if line.strip()))


def read_boxes(path: str) -> dict[str, Box]:
    """{n000001/0001_01: (x, y, width, height)} of a loose_bb file. Raises UserError for another layout."""
    boxes = {}
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        next(file, None)  # NAME_ID,X,Y,W,H
        for number, line in enumerate(file, 2):
            try:
                name, x, y, width, height = line.strip().split(",")
                boxes[name.strip(' "')] = (int(x), int(y), int(width), int(height))
            except ValueError:
                raise UserError(
                    f"{path} line {number}: is not NAME_ID,X,Y,W,H; restore the file or leave crop=true out"
                ) from None
    return boxes
