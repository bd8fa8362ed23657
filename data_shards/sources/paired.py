"""Pictures of two halves side by side, A | B, as pix2pix reads them: SRC/[train|val|test]/**/<image>.

Isola et al., CVPR 2017, section 3.3 and the authors' data sets. A picture is stored as it is, and read with
`data.halves=true` as the images `a` (left) and `b` (right). Which of them is the input cannot be seen, so
`direction=` must say it; the manifest keeps it under `options`. Halves are square, unless `shape=any`.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from data_shards.errors import UserError
from data_shards.images.jpeg import read_head
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected
from data_shards.sources.base import FileSource, Sample, stem, walk
from data_shards.sources.class_folders import PARTS

DIRECTIONS = ("AtoB", "BtoA")
OPTIONS: dict[str, object] = {
    "direction": "",  # AtoB: the left half is the input and the right one the target; or BtoA
    "shape": "square",  # square: of each half; any: of any shape, with an even width
    "partition": "auto",  # auto (the folders train, val and test, where they are there) | none
}


class Paired(FileSource):
    """The pictures of a folder; each is a group of its own."""

    licence = "not stated by the source: check the terms of the pictures before you share them"
    cls = None
    cluster = False

    def __init__(self, root: str, *, shape: str, partition: bool) -> None:
        super().__init__(root)
        self.name = os.path.basename(os.path.abspath(root)) or "paired"
        self.shape, self.partition = shape, partition

    def samples(self) -> Iterator[Sample]:
        found = False
        for path, num_bytes, unfit in walk(self.root):
            folders = os.path.dirname(path).lower().split("/")
            part = PARTS.get(folders[0], "") if self.partition else ""
            found = found or not unfit
            yield Sample(path, "", stem(path), num_bytes, unfit=unfit, split=part)
        if not found:
            raise UserError(f"src={self.root}: holds no pictures; give the folder of the pairs")

    def read(self, sample: Sample) -> bytes:
        """The picture. Raises Rejected where its halves are not equal."""
        data = super().read(sample)
        width, height = _size(data)
        if width % 2:
            raise Rejected(f"is {width} x {height} pixels: an odd width has no two equal halves")
        if self.shape == "square" and width != 2 * height:
            raise Rejected(
                f"is {width} x {height} pixels, its halves are not square: A and B are of unequal width, or "
                "type shape=any if all halves are equal"
            )
        return data


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of an upright picture. Raises Rejected."""
    if data[:2] == b"\xff\xd8":
        try:
            head = read_head(data)
        except ValueError as error:
            raise Rejected(str(error)) from None
        sides = head.width, head.height
        return sides[::-1] if head.orientation > 4 else sides
    height, width = pixels(data).shape[:2]
    return width, height


def source(
    src: str, *, split: str, direction: str = "", shape: str = "square", partition: str = "auto"
) -> Paired:
    """Open src, the folder of the pairs or of their splits. Raises UserError."""
    del split  # all parts are packed, each into its own set
    if direction not in DIRECTIONS:
        raise UserError(
            f"direction={direction}: say which half is the input, since pictures do not show it: type "
            "direction=AtoB (input left, target right) or direction=BtoA (target left, input right)"
        )
    if shape not in ("square", "any"):
        raise UserError(f"shape={shape}: type square or any")
    if partition not in ("auto", "none"):
        raise UserError(f"partition={partition}: type auto or none")
    if not os.path.isdir(src):
        raise UserError(f"src={src}: is not a folder; give the folder of the pairs")
    return Paired(src, shape=shape, partition=partition == "auto")


def states_direction(manifest: Mapping[str, Any]) -> bool:
    """Whether a set holds pairs side by side, by its manifest."""
    return (manifest.get("options") or {}).get("direction", "") in DIRECTIONS


def input_and_target(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """The names of input and target among a batch's images, as a set's manifest states them."""
    if not states_direction(manifest):
        raise UserError(
            f"{manifest.get('name')}: does not state which half is the input: pack it by source=paired "
            "direction=AtoB or direction=BtoA"
        )
    return ("a", "b") if manifest["options"]["direction"] == "AtoB" else ("b", "a")
