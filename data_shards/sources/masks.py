"""Pictures and their masks in two folders, matched by name: SRC/<pictures>/**/x.jpg, SRC/<masks>/**/x.png.

The folders are found by their usual names (`Training_Images` and `Ground_Truth`, `images` and `masks`), or
given. A mask may have another size than its picture, but the same shape. Its pixels are numbers of classes,
255 unknown; one of 0 and 255 alone is black and white, and white is class 1. There are no official parts
unless both folders are divided into train, val and test: else a hash of the name divides.
"""

import io
import os
from collections.abc import Iterator

import numpy as np

from data_shards.errors import UserError
from data_shards.images.masks import UNKNOWN
from data_shards.images.normalize import pixels
from data_shards.images.pixels import LARGEST, Rejected
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, read_file, stem
from data_shards.sources.boxes import picture_size, upright_size
from data_shards.sources.class_folders import PARTS, listed_words
from data_shards.sources.walk import Walk

OPTIONS: dict[str, object] = {
    "images": "",
    "masks": "",
    "suffix": "",
    "classes": "background,person",
    "values": "auto",
    "partition": "auto",
}
HELP = {
    "images": "folder of the pictures in SRC (empty = the first usual name)",
    "masks": "folder of the masks in SRC (empty = the first usual name)",
    "suffix": "of the masks' names, such as _mask",
    "classes": "names of the numbers in the masks, from 0",
    "values": "auto | numbers (of classes) | white (above 127 is class 1)",
    "partition": "auto (folders train, val and test in both) | none (by a hash)",
}
PICTURES = ("Training_Images", "images", "image", "imgs", "JPEGImages")
MASKS = ("Ground_Truth", "masks", "mask", "labels", "annotations", "SegmentationClass")
VALUES = ("auto", "numbers", "white")
_SHAPE = 0.01  # by which the shapes of picture and mask may differ, since both sides are whole pixels


class Masks(FileSource):
    """The pictures of one folder that have a mask in the other."""

    licence = "not stated by the source: check the terms of the pictures before you share them"
    cls = None
    cluster = False

    def __init__(
        self,
        root: str,
        images: str,
        masks: str,
        *,
        suffix: str,
        classes: list[str],
        values: str,
        official: bool,
    ) -> None:
        """images, masks: the two folders below root. official: whether their folders are splits."""
        super().__init__(root)
        self.name = os.path.basename(os.path.abspath(root)) or "masks"
        self.images, self.masks, self.suffix = images, masks, suffix
        self.classes, self.values, self.official = classes, values, official
        self.fields = {"mask": Field("mask", "u1", names=tuple(map(visible, classes)))}

    def samples(self) -> Iterator[Sample]:
        walk, masks, found = Walk(self.root), dict[str, str](), False
        for path, num_bytes, unfit in walk.below(self.masks):
            name = os.path.splitext(os.path.relpath(path, self.masks))[0]
            why = unfit or ("" if name.endswith(self.suffix) else f"its name does not end in {self.suffix}")
            name = name.removesuffix(self.suffix)
            if why or name in masks:
                yield Sample(path, "", "", num_bytes, unfit=why or f"has the name of {masks[name]}")
            else:
                masks[name] = path
        used: dict[str, str] = {}
        for path, num_bytes, unfit in walk.below(self.images):
            name = os.path.splitext(os.path.relpath(path, self.images))[0]
            if not unfit and name in used:
                unfit = f"has the name of {used[name]}"
            elif not unfit and name not in masks:
                unfit = f"has no mask in {self.masks}"
            if unfit:
                yield Sample(path, "", stem(name), num_bytes, unfit=unfit)
                continue
            used[name], found = path, True
            part = PARTS.get(name.split("/")[0].lower(), "") if self.official else ""
            mask = os.fsencode(masks[name])
            yield Sample(path, "", os.path.basename(name), num_bytes, split=part, extra=mask)
        for name in sorted(set(masks) - set(used)):
            yield Sample(masks[name], "", "", unfit=f"has no picture in {self.images}")
        if not found:
            raise UserError(
                f"src={self.root}: no picture of {self.images} has a mask of its name in {self.masks}; type "
                "images= and masks=, and suffix= where the masks' names end in more"
            )

    def read(self, sample: Sample) -> dict[str, bytes | np.ndarray]:  # type: ignore[override]
        """The picture and its mask. Raises Rejected where they are not of one shape."""
        data = super().read(sample)
        mask = _numbers(
            read_file(os.path.join(self.root, os.fsdecode(sample.extra))), len(self.classes), self.values
        )
        width, height = upright_size(*picture_size(os.path.join(self.root, sample.path)))
        if _differs(mask.shape[1], mask.shape[0], width, height):
            raise Rejected(
                f"mask: is {mask.shape[1]} x {mask.shape[0]}, of another shape than its picture of "
                f"{width} x {height}"
            )
        return {"image": data, "mask": mask}


def _differs(wide: int, high: int, width: int, height: int) -> bool:
    """Whether a mask has another shape than its picture, by more than rounding to whole pixels."""
    by_width, by_height = abs(high - wide * height / width), abs(wide - high * width / height)
    return min(by_width / high, by_height / wide) > _SHAPE and min(by_width, by_height) > 1


def _numbers(data: bytes, classes: int, values: str) -> np.ndarray:
    """The mask uint8 [h, w] of a file of any format. Raises Rejected."""
    grey = _grey(data)
    seen = np.bincount(grey.reshape(-1), minlength=256)
    black_and_white = not seen[1:UNKNOWN].any()
    if values == "white" or (values == "auto" and classes == 2 and black_and_white):
        return (grey > 127).astype(np.uint8)
    if values == "auto" and classes == 2 and seen[2:UNKNOWN].any():
        raise Rejected("mask: has shades of grey: type values=white to take what is above 127 as class 1")
    return grey  # numbers that are too large are refused where it is stored


def _grey(data: bytes) -> np.ndarray:
    """The values uint8 [h, w] of a mask: grey, of a palette its indexes, or of three equal channels."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST:
                raise Rejected(f"mask: {image.width} x {image.height} pixels are too many")
            if image.mode in ("L", "P"):
                return np.asarray(image).copy()
            if image.mode == "1":
                return np.asarray(image).astype(np.uint8) * 255
    except Rejected:
        raise
    except Exception as error:
        raise Rejected(f"mask: does not decode: {' '.join(str(error).split())[:100]}") from None
    try:
        planes = pixels(data)
    except Rejected as error:
        raise Rejected(f"mask: {error}") from None
    if (planes != planes[..., :1]).any():
        raise Rejected("mask: is coloured: give numbers of classes in 8 bits of grey")
    return np.ascontiguousarray(planes[..., 0])


def source(
    src: str,
    *,
    split: str,
    images: str = "",
    masks: str = "",
    suffix: str = "",
    classes: str = "background,person",
    values: str = "auto",
    partition: str = "auto",
) -> Masks:
    """Open src, the folder that holds both folders. Raises UserError."""
    del split  # all parts are packed, each into its own set
    if values not in VALUES:
        raise UserError(f"values={values}: type {', '.join(VALUES[:-1])} or {VALUES[-1]}")
    if partition not in ("auto", "none"):
        raise UserError(f"partition={partition}: type auto or none")
    names = listed_words(classes)
    if not 2 <= len(names) <= UNKNOWN or len(set(names)) < len(names):
        raise UserError(f"classes={classes}: type 2 to {UNKNOWN} different names, from that of number 0")
    there = folders_of(src)
    pair = []
    for key, value, usual in (("images", images, PICTURES), ("masks", masks, MASKS)):
        name = value or next((name for name in usual if name in there), "")
        if not name or not os.path.isdir(os.path.join(src, name)):
            raise UserError(f"src={src}: has no folder {value or ' or '.join(usual)}; type {key}=FOLDER")
        pair.append(name)
    inner = [
        {entry.name.lower() for entry in os.scandir(os.path.join(src, name)) if entry.is_dir()}
        for name in pair
    ]
    official = partition == "auto" and bool(inner[0]) and all(name in PARTS for name in inner[0] & inner[1])
    return Masks(
        src,
        *pair,
        suffix=suffix,
        classes=names,
        values=values,
        official=official and bool(inner[0] & inner[1]),
    )
