"""A packed set for the tests of bits: small images with forty marks and an age, some of them unknown."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample
from tests.support.painted import as_jpeg

MARKS = 40


class Marked:
    """`count` images of 24 pixels: each mark is a cell that is light or dark, age is the light of all."""

    name, licence, cls, cluster = "marked", "none", None, False
    fields = {  # noqa: RUF012
        "marks": Field("bits", "i1", (MARKS,), names=tuple(f"mark{number}" for number in range(MARKS))),
        "age": Field("value", "f4"),
    }

    def __init__(self, count: int) -> None:
        self.count = count

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            bits = np.random.default_rng(number).integers(0, 2, MARKS)
            age = -1.0 if number % 7 == 3 else float(bits.sum())
            bits[number % MARKS] = -1
            yield Sample(f"{number}.jpg", "", f"m{number:03d}", labels=(bits, age))

    def read(self, sample: Sample) -> bytes:
        rng = np.random.default_rng(int(sample.stem[1:]))
        bits = np.concatenate([rng.integers(0, 2, MARKS), np.zeros(24, int)]).reshape(8, 8)
        image = (60 + 120 * bits).repeat(3, 0).repeat(3, 1)[..., None] + rng.integers(-20, 20, (24, 24, 3))
        return as_jpeg(image.astype(np.uint8))


def pack_marked(folder: Path, count: int = 40) -> None:
    """Pack `folder`/train and `folder`/eval."""
    pack(Marked(count), folder, Request(holdout=0.25), workers=1)
