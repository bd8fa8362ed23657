"""Procedural faces with the labels that a job needs, for its audit.

A label that the generator knows is its own (the age, the gender); any other is made of what it knows, so that
it can be seen in the image.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.faces.generator import ATTRIBUTES
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample
from data_shards.sources.procedural import Procedural


@dataclass(frozen=True)
class LabelledFaces:
    """The faces of `source` with further `fields`: classes, bits or plain numbers."""

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
            known |= {name: label(name, field, known) for name, field in self.own.items()}
            yield sample._replace(labels=tuple(known.values()))

    def read(self, sample: Sample) -> bytes:
        return self.source.read(sample)


def label(name: str, field: Field, known: Mapping[str, Any]) -> Any:
    """Return the label `name` of kind class, bits or value for a face of which `known` is known."""
    if field.kind == "bits":
        marks = np.array([known[mark] for mark in ATTRIBUTES])
        return np.resize(marks, field.shape).astype(field.dtype)
    if field.kind == "class":
        number = known[name] if name in known else known["tone"] + known["gender"] + known["emotion"]
        return number % len(field.names)
    return known.get(name, known["age"])
