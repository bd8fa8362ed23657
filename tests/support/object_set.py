"""A small set of bright rectangles on noise, with the fields of a detection set; some images hold none."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample
from tests.support.painted import as_jpeg

FLAGS = ("ignore", "blur")
COLOURS = {"face": (230, 180, 140), "sign": (60, 90, 230), "person": (150, 60, 60)}


class Objects:
    """`count` images; classes: names of COLOURS."""

    name, licence, cls, cluster = "objects", "none", None, False

    def __init__(self, count: int, *, classes: tuple[str, ...] = ("face",), seed: int = 0) -> None:
        self.count, self.classes, self.seed = count, classes, seed
        self.fields = {
            "boxes": Field("boxes", "f4", (4,), ragged=True, unknown=None),
            "box_class": Field("class", "i4", names=classes, ragged=True, unknown=None, rows_of="boxes"),
            "box_flags": Field(
                "bits", "u1", (len(FLAGS),), names=FLAGS, ragged=True, unknown=None, rows_of="boxes"
            ),
            "box_area": Field("value", "f4", ragged=True, rows_of="boxes"),
        }

    def scene(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(image uint8 [h, w, 3], boxes [m, 4] x, y, width, height, classes [m], flags [m, 2])."""
        rng = np.random.default_rng((self.seed, number))
        width, height = (int(side) for side in rng.integers(70, 110, 2))
        image = rng.integers(20, 90, (height, width, 3)).astype(np.uint8)
        count = int(rng.integers(0, 4))
        sides = rng.integers(10, 34, (count, 2))
        corners = (rng.random((count, 2)) * ([width, height] - sides)).astype(int)
        boxes, kinds = np.concatenate([corners, sides], 1), rng.integers(0, len(self.classes), count)
        flags = (rng.random((count, 2)) < (0.15, 0.3)).astype(np.uint8)
        for (x, y, wide, high), kind in zip(boxes.tolist(), kinds.tolist(), strict=True):
            image[y : y + high, x : x + wide] = COLOURS[self.classes[kind]]
        return image, boxes, kinds, flags

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            _, boxes, kinds, flags = self.scene(number)
            labels = (boxes.tolist(), kinds.tolist(), flags.tolist(), [-1.0] * len(boxes))
            yield Sample(f"{number}.jpg", "", str(number), labels=labels, group=str(number))

    def read(self, sample: Sample) -> bytes:
        return as_jpeg(self.scene(int(sample.stem))[0])


def pack_objects(folder: Path, count: int = 48, *, classes: tuple[str, ...] = ("face",)) -> None:
    """Pack folder/train and folder/eval."""
    pack(Objects(count, classes=classes), folder, Request(holdout=0.25), workers=1)
