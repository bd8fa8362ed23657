"""The members of a sample that state its labels: written by the packer, made again from the index by `check`.

`webdataset` and DALI's reader take them as they are. A set of schema 1 has `cls` alone; one of schema 2 also
has `json` with all labels of fixed size, since one member for each label would cost a kilobyte each, and
`<field>.npy` for each label of which a sample has any number.
"""

import io
import json
from collections.abc import Mapping

import numpy as np

from data_shards.shard_format.columns import RaggedColumn
from data_shards.shard_format.schema import PIECES, Schema


def extensions(schema: Schema) -> list[str]:
    """The extensions of all members that a sample may have."""
    labels = ["cls", "json", *(f"{name}.npy" for name in schema.ragged)]
    return ["jpg", *labels, *(f"{name}.{PIECES[field.kind]}" for name, field in schema.pieces.items())]


def label_members(
    schema: Schema, labels: Mapping[str, np.ndarray], ragged: Mapping[str, RaggedColumn], row: int
) -> dict[str, bytes]:
    """{extension: bytes} of the members after the image. labels: {field: [n, *shape]}, the identity too."""
    members = {}
    if schema.cls is not None:
        members["cls"] = b"%d" % int(labels[schema.cls][row])
    if schema.number > 1:
        values = {name: labels[name][row].tolist() for name in schema.columns}
        members["json"] = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    for name in schema.ragged:
        file = io.BytesIO()
        np.lib.format.write_array(file, ragged[name].rows_of(np.array([row]))[0], (1, 0), allow_pickle=False)
        members[f"{name}.npy"] = file.getvalue()
    return members
