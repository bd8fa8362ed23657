"""Data sets of boxes and masks in their published layouts, drawn small, for the tests of their sources."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from data_shards.shard_format.shard_set import ShardSet
from tests.support.small_set import jpeg, photo

SIZE = (64, 48)  # width, height of a picture


def put_picture(path: Path, number: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(photo(number, *size)))


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


def wider(root: Path, lists: Mapping[str, str], pictures: Mapping[str, Sequence[str]]) -> Path:
    """WIDER FACE: {part: text of its list}, {part: paths of its pictures}."""
    for part, text in lists.items():
        put_text(root / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt", text)
        for number, path in enumerate(pictures[part]):
            put_picture(root / f"WIDER_{part}" / "images" / path, number)
    return root


def coco(
    root: Path, annotations: Sequence[Mapping[str, object]], *, pictures: int = 3, part: str = "train2017"
) -> Path:
    """COCO: pictures 1 to `pictures` with these annotations, of classes 1 person, 3 car."""
    for number in range(1, pictures + 1):
        put_picture(root / part / f"{number:012d}.jpg", number)
    entries = [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": SIZE[0], "height": SIZE[1]}
        for number in range(1, pictures + 1)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    data = {"images": entries, "annotations": list(annotations), "categories": categories}
    put_text(root / "annotations" / f"instances_{part}.json", json.dumps(data))
    return root


def boxes_by_key(shards: ShardSet) -> dict[str, dict[str, list]]:
    """{the last part of the key: {ragged field: its rows}} of every sample."""
    found = {}
    for row in range(len(shards)):
        key = shards.member(row).removesuffix(".jpg").rpartition("/")[2]
        found[key] = {
            name: column.rows_of(np.array([row]))[0].tolist() for name, column in shards.ragged.items()
        }
    return found


def mask_of(shards: ShardSet, key: str, name: str = "mask") -> np.ndarray:
    """The stored mask of the sample whose key ends in `key`."""
    (row,) = [row for row in range(len(shards)) if shards.member(row).endswith(f"/{key}.jpg")]
    parts = shards.pieces[name]
    data = shards.shards[int(shards.shard[row])].read_bytes()[int(parts["offset"][row]) :][
        : int(parts["size"][row])
    ]
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
