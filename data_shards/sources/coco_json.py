"""COCO's `instances_*.json`: pictures, categories, and for each picture its annotations (cocodataset.org).

What is wrong with an annotation is told with its id. A helper of `coco.py`; masks: `coco_masks.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_shards.errors import UserError
from data_shards.files import parse_json, read_bytes

LARGEST = 1 << 31  # bytes; the training part's file has 450 million
REMEDY = "restore it, or give the folder of COCO as published"


@dataclass
class Picture:
    """A picture that the file lists."""

    name: str  # of its file
    size: tuple[int, int]  # width, height, as the file states them
    annotations: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Instances:
    """One file: its pictures by id, the names of its categories by id, and annotations of no picture."""

    path: str
    pictures: dict[int, Picture]
    categories: dict[int, str]
    strays: list[tuple[str, str]]  # (what, why) of entries that belong to no picture


def read_instances(path: str) -> Instances:
    """Read a file of instances. Raises UserError for one that is not that."""
    data = parse_json(read_bytes(path, limit=LARGEST, remedy=REMEDY), what=path, remedy=REMEDY)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list) or not all(isinstance(each, dict) for each in data[key]):
            raise UserError(f"{path}: has no list `{key}`; {REMEDY}")
    pictures: dict[int, Picture] = {}
    strays: list[tuple[str, str]] = []
    for entry in data["images"]:
        number, name = entry.get("id"), entry.get("file_name")
        sides = entry.get("width"), entry.get("height")
        plain = isinstance(name, str) and name and not name.startswith("/") and ".." not in name.split("/")
        if not plain or type(number) is not int or not all(type(side) is int and side > 0 for side in sides):
            strays.append((f"image {number!r:.40}", "has no id, file_name, width and height"))
        elif number in pictures:
            strays.append((f"image {number}", f"has the id of {pictures[number].name}"))
        else:
            pictures[number] = Picture(name, (sides[0], sides[1]))
    for entry in data["annotations"]:
        owner = entry.get("image_id")
        if type(owner) is not int or owner not in pictures:
            strays.append((named(entry), f"is of picture {owner!r:.40}, which the file does not list"))
        else:
            pictures[owner].annotations.append(entry)
    return Instances(path, pictures, _categories(data["categories"], path), strays)


def named(annotation: Mapping[str, Any]) -> str:
    """The words by which an annotation is named in rejected.csv."""
    return f"annotation {annotation.get('id')!r:.40}"


def _categories(entries: list[dict[str, Any]], path: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in entries:
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not isinstance(name, str) or not name or number in names:
            raise UserError(f"{path}: a category has no id and name of its own; {REMEDY}")
        names[number] = name
    if len(set(names.values())) < len(names) or not names:
        raise UserError(f"{path}: has no categories, or two of one name; {REMEDY}")
    return dict(sorted(names.items()))
