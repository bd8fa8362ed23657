"""The members of a sample that state its labels: written by the packer, made again from the index by `check`.

`webdataset` and DALI's reader take them as they are. A set of schema 1 has `cls` alone; one of schema 2 also
has `json` with all labels of the sample. One member for each label would cost a kilobyte each.
"""

import json
from collections.abc import Mapping

import numpy as np

from data_shards.shard_format.schema import Schema


def label_members(schema: Schema, labels: Mapping[str, np.ndarray], row: int) -> dict[str, bytes]:
    """{extension: bytes} of the members after the image. labels: {field: [n, *shape]}, the identity too."""
    members = {}
    if schema.cls is not None:
        members["cls"] = b"%d" % int(labels[schema.cls][row])
    if schema.number > 1:
        values = {name: labels[name][row].tolist() for name in schema.columns}
        members["json"] = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    return members
