"""What is stored of one sample: its image, and the further images and masks that its source declares."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_shards.errors import UserError
from data_shards.images.masks import store_mask
from data_shards.images.normalize import normalise
from data_shards.images.pixels import Rejected
from data_shards.shard_format.schema import Field, Schema
from data_shards.sources.base import Sample, Source


class StoredPiece(NamedTuple):
    """An image or a mask as it is stored in a shard."""

    data: bytes
    width: int  # pixels
    height: int
    converted: str | None  # what had to be done (None = these are the file's own bytes)


def read_pieces(
    source: Source, schema: Schema, sample: Sample, *, size: int | None, verify: bool
) -> dict[str, StoredPiece]:
    """{name: piece} of one sample, `image` first; a piece that the sample does not have is left out.

    size, verify: see `normalise`. Raises Rejected or OSError for a file that cannot be used, UserError for a
    piece that the source does not declare.
    """
    content = source.read(sample)
    files: Mapping[str, bytes | np.ndarray] = {"image": content} if isinstance(content, bytes) else content
    for name in files:
        if name != "image" and name not in schema.pieces:
            known = ", ".join(["image", *schema.pieces])
            raise UserError(
                f"{name}: a piece of {sample.path} that its source does not declare; type {known}"
            )
    stored = {}
    for name, field in {"image": Field("image", "u1"), **schema.pieces}.items():
        data = files.get(name, b"" if name == "image" else None)
        if data is None:
            continue
        try:
            if field.kind == "mask":
                stored[name] = StoredPiece(*store_mask(data, classes=len(field.names)), None)
            elif isinstance(data, np.ndarray):
                raise UserError(f"{name}: an array of {sample.path}, not a mask; give the bytes of a file")
            else:
                stored[name] = StoredPiece(*normalise(data, size=size, crop=sample.crop, verify=verify))
        except Rejected as error:
            raise Rejected(f"{name}: {error}" if name != "image" else str(error)) from None
    return stored
