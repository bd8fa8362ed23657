"""Packed scenes for the tests of fields: painted boxes, their corners, a mask, and a second image.

Each image has a red box in its left half and a green one in its right half, each some pixels away from the
borders. Every third has no mask, every fourth no second image.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import Sample
from tests.support.painted import as_jpeg, as_png

FIELDS = ("age", "breed", "boxes", "colour", "corners", "parts", "depth")


class Scenes:
    """`count` scenes of other sizes for each `seed`."""

    name, licence, cls, cluster = "scenes", "none", "breed", True
    fields = {  # noqa: RUF012
        "age": Field("value", "f4"),
        "breed": Field("class", "i4", names=("cat", "dog")),
        "boxes": Field("boxes", "i4", (4,), ragged=True),
        "colour": Field("class", "i2", names=("red", "green", "none"), ragged=True, rows_of="boxes"),
        "corners": Field("points", "f4", (2, 2), names=("left_corner", "right_corner")),
        "parts": Field("mask", "u1", names=("back", "red", "green")),
        "depth": Field("image", "u1"),
    }

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def scene(self, number: int) -> tuple[tuple[int, int], np.ndarray]:
        """(width, height), and the boxes [2, 4] as x0, y0, x1, y1."""
        rng = np.random.default_rng((self.seed, number))
        width, height = (int(side) for side in rng.integers(70, 260, 2))
        boxes = []
        for left in (0, -(-width // 2)):
            half = width // 2
            x0, y0 = left + rng.integers(4, half // 3), rng.integers(4, height // 3)
            boxes.append(
                (
                    x0,
                    y0,
                    left + rng.integers(2 * half // 3, half - 4),
                    rng.integers(2 * height // 3, height - 4),
                )
            )
        return (width, height), np.array(boxes)

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            _, boxes = self.scene(number)
            sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
            extra = number % 2  # of a box that is not known
            red = boxes[0]
            corners = [(red[0], red[1]), (red[2], red[1])] if number % 5 else [(-1, -1), (-1, -1)]
            labels = (number / 2, number % 2, sides + [[-1] * 4] * extra, [0, 1] + [2] * extra, corners)
            yield Sample(f"{number}.jpg", f"s{number:03d}", "0", labels=labels)

    def read(self, sample: Sample) -> dict[str, bytes]:
        number = int(sample.identity[1:])
        (width, height), boxes = self.scene(number)
        image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        for channel, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            image[y0:y1, x0:x1, channel] = 255
            mask[y0:y1, x0:x1] = channel + 1
        pieces = {"image": as_jpeg(image)}
        if number % 3:
            pieces["parts"] = as_png(mask)
        if number % 4:  # a third of the size, and all of one colour
            small = np.full((height // 3, width // 3, 3), (20 + 5 * number, 90, 200), np.uint8)
            pieces["depth"] = as_jpeg(small)
        return pieces


def pack_scenes(folder: Path, count: int = 24, seed: int = 0) -> ShardSet:
    packed = pack(Scenes(count, seed), folder, Request(shard_mb=0.02), workers=1)[0].folder
    return ShardSet.open(packed, fields=FIELDS)


def number_of(shards: ShardSet, row: int) -> int:
    return int(shards.member(row).partition("/")[0][1:])
