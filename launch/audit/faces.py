"""Procedural faces with the labels that a job needs, or beside a picture of their parts, for its audit.

A label that the generator knows is its own (the age, the gender); any other is made of what it knows, so that
it can be seen in the image.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import simplejpeg

from data_shards.faces.generator import ATTRIBUTES, PARTS, draw
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample
from data_shards.sources.procedural import QUALITY, Procedural

OF_PAIRS = {"direction": "BtoA"}  # the parts, which are on the left, are the target
# RGB of each part: channels of 0, 128 and 255, the background black
PART_COLOURS = np.array(list(itertools.product((0, 128, 255), repeat=3)), np.uint8)[: len(PARTS)]


@dataclass(frozen=True)
class LabelledFaces:
    """The faces of `source` with further `fields`: classes, bits, plain numbers, or a mask of their parts."""

    source: Procedural
    own: Mapping[str, Field]
    name = "procedural"
    cls = "identity"
    cluster = True

    @property
    def licence(self) -> str:
        return self.source.licence

    @property
    def fields(self) -> dict[str, Field | str]:
        return {**self.source.fields, **self.own}

    def samples(self) -> Iterator[Sample]:
        for sample in self.source.samples():
            known = dict(zip(self.source.fields, sample.labels, strict=True))
            known |= {
                name: label(name, field, known)
                for name, field in self.own.items()
                if name not in pieces_of(self.own)
            }
            yield sample._replace(labels=tuple(known.values()))

    def read(self, sample: Sample) -> bytes | dict[str, bytes | np.ndarray]:
        """The image, with its masks beside it where there are any: the number of a part, at most the last."""
        image, masks = self.source.read(sample), pieces_of(self.own)
        if not masks:
            return image
        person, number = sample.path.split("/")
        parts = draw(int(person[1:]), int(number), seed=self.source.seed, size=self.source.size).parts
        drawn = {name: np.minimum(parts, len(field.names) - 1) for name, field in masks.items()}
        return {"image": image, **drawn}


@dataclass(frozen=True)
class FacePairs:
    """Each face of `source` with a picture of its parts on its left: the pairs of `OF_PAIRS`."""

    source: Procedural
    name = "procedural"
    cls = None
    cluster = False
    fields: ClassVar[Mapping[str, Field | str]] = {}

    @property
    def licence(self) -> str:
        return self.source.licence

    def samples(self) -> Iterator[Sample]:
        for sample in self.source.samples():
            yield Sample(sample.path, "", sample.stem, 2 * sample.num_bytes, group=sample.identity)

    def read(self, sample: Sample) -> bytes:
        person, number = sample.path.split("/")
        face = draw(int(person[1:]), int(number), seed=self.source.seed, size=self.source.size)
        both = np.hstack([PART_COLOURS[face.parts], face.image])
        return simplejpeg.encode_jpeg(np.ascontiguousarray(both), QUALITY, "RGB", "444")


def pieces_of(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Return the fields that are masks."""
    return {name: field for name, field in fields.items() if field.kind == "mask"}


def label(name: str, field: Field, known: Mapping[str, Any]) -> Any:
    """Return the label `name` of kind class, bits or value for a face of which `known` is known."""
    if field.kind == "bits":
        marks = np.array([known[mark] for mark in ATTRIBUTES])
        return np.resize(marks, field.shape).astype(field.dtype)
    if field.kind == "class":
        number = known[name] if name in known else known["tone"] + known["gender"] + known["emotion"]
        return number % len(field.names)
    return known.get(name, known["age"])
