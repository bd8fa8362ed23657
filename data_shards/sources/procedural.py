"""Synthetic faces: `rostro pack source=procedural identities=150 per_identity=12 out=DIR`. It reads no src.

The generator is `faces/generator.py`. Identities are numbered, so a larger set contains a smaller one.
"""

from collections.abc import Iterator, Mapping

import simplejpeg

from data_shards.errors import UserError
from data_shards.faces.generator import FIELDS, MAX_SIZE, MIN_SIZE, draw, labels
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample

NEEDS_SRC = False
SIZE = 112
# size and seed are also keys of the packer. For this source size is the size that is drawn (0 = SIZE), and
# seed decides who the people are.
OPTIONS: dict[str, object] = {"identities": 150, "per_identity": 12, "size": 0, "seed": 0}
QUALITY = 92
BYTES_PER_PIXEL = 0.45  # of the JPEGs, roughly: shards are cut by it


class Procedural:
    """`identities` people with `per_identity` images of `size` x `size` pixels each."""

    name = "procedural"
    licence = "drawn by a program, shows nobody; free of any claim"
    fields: Mapping[str, Field | str] = dict.fromkeys(FIELDS, "i4")
    cls = "identity"
    cluster = True

    def __init__(self, *, identities: int, per_identity: int, size: int, seed: int) -> None:
        self.identities, self.per_identity, self.size, self.seed = identities, per_identity, size, seed

    def samples(self) -> Iterator[Sample]:
        num_bytes = round(BYTES_PER_PIXEL * self.size**2)
        for identity in range(self.identities):
            person = f"p{identity:06d}"
            for number in range(self.per_identity):
                stem = f"{number:04d}"
                values = labels(identity, number, seed=self.seed)
                yield Sample(f"{person}/{stem}", person, stem, num_bytes, values)

    def read(self, sample: Sample) -> bytes:
        person, stem = sample.path.split("/")
        face = draw(int(person[1:]), int(stem), seed=self.seed, size=self.size)
        return simplejpeg.encode_jpeg(face.image, QUALITY, "RGB", "420")


def source(src: str, *, split: str, identities: int, per_identity: int, size: int, seed: int) -> Procedural:
    """Make the source; src must be empty. Raises UserError for a number out of range."""
    del split
    if src:
        raise UserError(f"src={src}: source=procedural reads no folder; leave src out")
    size = size or SIZE
    checks = {
        "identities": (identities, 1, 10**6),
        "per_identity": (per_identity, 1, 10**4),
        "size": (size, MIN_SIZE, MAX_SIZE),
        "seed": (seed, 0, 2**63 - 1),
    }
    for key, (value, low, high) in checks.items():
        if not low <= value <= high:
            raise UserError(f"{key}={value} is out of range: type {low} to {high}")
    return Procedural(identities=identities, per_identity=per_identity, size=size, seed=seed)
