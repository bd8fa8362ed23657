"""Drawn faces packed as train and eval, with faults planted in them, for the tests of audits and subsets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from data_shards.faces.generator import draw
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample

SIDE = 96
CLASSES = ("angry", "happy", "sad")
BITS = ("hat", "beard")


class Shown(NamedTuple):
    """One image of a planted set; its class, age and bits are those of its number unless they are given."""

    number: int  # of the face that is drawn
    person: str = ""
    change: Callable[[np.ndarray], np.ndarray] | None = None  # of the pixels
    quality: int = 92
    labels: tuple[int, float, tuple[int, int]] | None = None
    group: str = ""


def face(number: int) -> np.ndarray:
    """Draw a face of somebody else for each number: uint8 [SIDE, SIDE, 3]."""
    return draw(number, 0, size=SIDE).image


def shown_labels(number: int) -> tuple[int, float, tuple[int, int]]:
    return number % 3, float(20 + number % 40), (number % 2, number // 2 % 2)


class Planted:
    """The images that it is given, in memory."""

    name, licence, cls, cluster = "planted", "none", None, True
    fields = {  # noqa: RUF012
        "emotion": Field("class", "i1", names=CLASSES),
        "age": Field("value", "f4"),
        "worn": Field("bits", "i1", (2,), names=BITS),
    }

    def __init__(self, images: Sequence[Shown]) -> None:
        self.images = list(images)

    def samples(self) -> Iterator[Sample]:
        for place, image in enumerate(self.images):
            labels = image.labels or shown_labels(image.number)
            yield Sample(f"{place}", image.person, f"i{place:04d}", labels=labels, group=image.group)

    def read(self, sample: Sample) -> bytes:
        image = self.images[int(sample.path)]
        pixels = face(image.number)
        pixels = np.ascontiguousarray(image.change(pixels) if image.change else pixels)
        return simplejpeg.encode_jpeg(pixels, image.quality, "RGB", "420")


def pack_planted(out: Path, sets: dict[str, Sequence[Shown]], *, name: str = "planted") -> Path:
    """Pack each of the sets as `out`/<split>; a pack of its own each, so nothing keeps them apart."""
    for split, images in sets.items():
        pack(Planted(images), out, Request(split=split, name=name), workers=1)
    return out


def brightened(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.2 + 15, 0, 255).astype(np.uint8)


def halved(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)


def enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC)


def greyed(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def trimmed(image: np.ndarray) -> np.ndarray:
    return image[1:-1, 1:-1]


def blurred(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 9)


def blank(image: np.ndarray) -> np.ndarray:
    return np.full_like(image, 90)


def shrunk(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA)
