"""COCO (Lin et al., ECCV 2014): pictures with boxes and outlines of objects of 80 classes.

    SRC/train2017/000000000009.jpg                     any folder PART or PART + year, likewise 2014
    SRC/annotations/instances_train2017.json           see `coco_json.py`

The official parts are `train` and `val`. `classes=person,car` keeps these, numbered as typed; pictures of
none of them are kept as negatives. Crowds, which COCO outlines as one region, are flagged `ignore` and
`crowd`. `masks=true` paints the outlines into a field `mask` (`coco_masks.py`). Lists of keypoints are left
alone.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.images.masks import UNKNOWN
from data_shards.images.pixels import Rejected, upright
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, stem
from data_shards.sources.boxes import IGNORE, Boxes, box_fields, picture_size, upright_box, upright_size
from data_shards.sources.class_folders import chosen_classes
from data_shards.sources.coco_json import Instances, Picture, named, read_instances
from data_shards.sources.coco_masks import fault_of_outline, packed, paint
from data_shards.sources.walk import Walk

OPTIONS: dict[str, object] = {"classes": "", "masks": False}
HELP = {
    "classes": "some of the classes, numbered as typed, such as [person,car] (empty = all of them)",
    "masks": "paint the outlines of the objects into a mask, 255 where they cannot be used",
}
FLAGS = (IGNORE, "crowd")
MOST_AREA = 1e12  # pixels: a larger one is not stated
_LIST = re.compile(r"instances_((train|val)\d*)\.json")


class Coco(FileSource):
    """The pictures of all parts with their boxes and, if asked for, a mask."""

    name = "coco"
    licence = "annotations CC BY 4.0; the photographs under the terms of Flickr and their owners"
    cls = None
    cluster = False

    def __init__(
        self, root: str, lists: Mapping[str, Instances], names: Sequence[str], *, masks: bool
    ) -> None:
        """lists: {folder of the pictures: its instances}. names: of the classes, by number."""
        super().__init__(root)
        self.lists, self.names, self.masks = lists, list(names), masks
        fields: dict[str, Field | str] = {**box_fields(names, FLAGS)}
        if masks:
            fields["mask"] = Field("mask", "u1", names=("background", *names))
        self.fields: Mapping[str, Field | str] = fields

    def __getstate__(self) -> dict[str, object]:
        """Workers only read files, so the lists of all pictures are not sent to them."""
        return {"root": self.root, "masks": self.masks}

    def samples(self) -> Iterator[Sample]:
        for folder, instances in self.lists.items():
            listed = os.path.join("annotations", os.path.basename(instances.path))
            for what, why in instances.strays:
                yield Sample(f"{listed}: {what}", "", "", unfit=why)
            files: dict[str, int] = {}
            for path, num_bytes, unfit in Walk(self.root).below(folder):
                if unfit:
                    yield Sample(path, "", stem(path), num_bytes, unfit=unfit)
                else:
                    files[os.path.relpath(path, folder)] = num_bytes
            named_files: set[str] = set()
            for picture in instances.pictures.values():
                path = os.path.join(folder, picture.name)
                if picture.name not in files:
                    why = f"is named in {listed}, but there is no such picture"
                    yield Sample(path, "", stem(picture.name), unfit=why)
                elif picture.name in named_files:
                    yield Sample(f"{listed}: {picture.name}", "", "", unfit="is listed twice")
                else:
                    named_files.add(picture.name)
                    yield from self._samples(path, files[picture.name], picture, instances, listed)
            for name, num_bytes in files.items():
                if name not in named_files:
                    yield Sample(
                        os.path.join(folder, name),
                        "",
                        stem(name),
                        num_bytes,
                        unfit=f"has no entry in {listed}",
                    )

    def _samples(
        self, path: str, num_bytes: int, picture: Picture, instances: Instances, listed: str
    ) -> Iterator[Sample]:
        """The sample of a picture, and its annotations that are left out with their reasons."""
        name, part = stem(os.path.basename(path)), _part(path)
        try:
            width, height, turn = picture_size(os.path.join(self.root, path))
        except (OSError, Rejected) as error:
            yield Sample(path, "", name, num_bytes, unfit=str(error))
            return
        stated = picture.size
        if stated != (width, height) and stated != upright_size(width, height, turn):
            why = f"is {width} x {height}, {listed} says {stated[0]} x {stated[1]}"
            yield Sample(path, "", name, num_bytes, unfit=why)
            return
        if stated != (width, height):  # the annotations are of the upright picture already
            turn = 1
        boxes = Boxes(upright_size(*stated, turn), len(FLAGS))
        regions: list[tuple[float, int, Any]] = []
        for annotation in picture.annotations:
            why, region = self._add(boxes, annotation, instances, stated, turn)
            if why:
                yield Sample(f"{listed}: {named(annotation)}", "", "", unfit=f"{path}: {why}")
            regions += [region] if region else []
        regions.sort(key=lambda region: -region[0])
        extra = packed([(number, outline) for _, number, outline in regions], stated) if self.masks else b""
        if extra and turn != 1:
            extra = b"%d" % turn + extra
        yield Sample(
            path, "", name, num_bytes, boxes.labels(), split=part, mended=tuple(boxes.mended), extra=extra
        )

    def _add(
        self,
        boxes: Boxes,
        annotation: Mapping[str, Any],
        instances: Instances,
        size: tuple[int, int],
        turn: int,
    ) -> tuple[str, tuple[float, int, Any] | None]:
        """Add a box; returns (why something of it is left out, (area, class, outline) of its region)."""
        category = annotation.get("category_id")
        if type(category) is not int or category not in instances.categories:
            return f"has the class {category!r:.40}, which the file does not list", None
        if instances.categories[category] not in self.names:
            return "", None
        number = self.names.index(instances.categories[category])
        box, area = annotation.get("bbox"), annotation.get("area")
        if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
            return f"has the box {box!r:.60}, not four numbers", None
        crowd = int(annotation.get("iscrowd") == 1)
        area = float(area) if isinstance(area, int | float) and 0 <= area < MOST_AREA else -1.0
        why = boxes.add(upright_box(box, size, turn), number, (crowd, crowd), area)
        said = f"its box {box!r:.80} {why}" if why else ""
        if not self.masks:
            return said, None
        outline, sides = annotation.get("segmentation"), max(box[2], 0) * max(box[3], 0)
        if fault := fault_of_outline(outline, size):
            if why:  # not even where it would be is known
                return said, None
            return f"{fault}: its region of the mask is unknown", (sides, UNKNOWN, box)
        return said, (area if area >= 0 else min(sides, MOST_AREA), number + 1, outline)

    def read(self, sample: Sample) -> bytes | dict[str, bytes | np.ndarray]:  # type: ignore[override]
        """The picture, and its mask."""
        data = super().read(sample)
        if not self.masks:
            return data
        turn, outlines = (
            (int(sample.extra[:1]), sample.extra[1:]) if sample.extra[:1] != b"[" else (1, sample.extra)
        )
        return {"image": data, "mask": np.ascontiguousarray(upright(paint(outlines), turn))}


def _part(path: str) -> str:
    return "train" if path.startswith("train") else "val"


def source(src: str, *, split: str, classes: str = "", masks: bool = False) -> Coco:
    """Open src, the folder that holds `annotations` and the pictures. Raises UserError."""
    del split  # all parts are packed, each into its own set
    names = folders_of(src)
    listed = os.path.join(src, "annotations")
    lists: dict[str, Instances] = {}
    for name in sorted(os.listdir(listed)) if os.path.isdir(listed) else ():
        match = _LIST.fullmatch(name)
        if match and match[1] in names:
            lists[match[1]] = read_instances(os.path.join(listed, name))
    if not lists:
        raise UserError(
            f"src={src}: has no annotations/instances_train2017.json beside a folder train2017 (or val2017, "
            "train2014, val2014); give the folder of COCO as published"
        )
    found = list(dict.fromkeys(name for each in lists.values() for name in each.categories.values()))
    chosen = chosen_classes(classes, found)
    if masks and len(chosen) >= UNKNOWN:
        raise UserError(f"masks=true: {len(chosen)} classes do not fit a mask of 8 bits; type classes=")
    return Coco(src, lists, chosen, masks=masks)
