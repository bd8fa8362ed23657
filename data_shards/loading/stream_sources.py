"""The shards that a stream reads: those of a packed set, or those of a pattern of URLs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from webdataset.shardlists import expand_urls

from data_shards.errors import UserError
from data_shards.shard_format.schema import PIECES
from data_shards.shard_format.shard_set import ShardSet


@dataclass(frozen=True)
class Sources:
    """The shards of a stream."""

    urls: list[str]
    counts: list[int] | None  # samples of each shard (None = not a packed set)
    index: ShardSet | None = None  # of the packed set (None = not a packed set)

    @classmethod
    def find(cls, source: str) -> "Sources":
        """From the folder of a packed set, or from a pattern like `pipe:cat x-{000000..000009}.tar`.

        Raises UserError for an empty `source`, and for a set that cannot be opened.
        """
        if not source:
            raise UserError(
                "data.train is empty: give a folder or a pattern like https://host/x-{000..009}.tar"
            )
        if not source.startswith("pipe:") and "://" not in source and Path(source).is_dir():
            index = ShardSet.open(source)
            urls = [str(path.absolute()) for path in index.shards]
            return cls(urls, [shard["samples"] for shard in index.manifest["shards"]], index)
        return cls(expand_urls(source), None)

    def slots(self, group: int) -> np.ndarray | None:
        """int64 [S]: slots that each shard gives in a pass, repeats included (None = not a packed set)."""
        if self.index is None or group == 1:
            return None if self.counts is None else np.array(self.counts, np.int64)
        starts = np.asarray(self.index.shard_start).astype(np.int64)
        cuts = np.union1d(starts, np.asarray(self.index.identity_start).astype(np.int64))
        owner = np.searchsorted(starts, cuts[:-1], "right") - 1
        slots = np.zeros(len(self.urls), np.int64)
        np.add.at(slots, owner, -(-np.diff(cuts) // group) * group)
        return slots

    def label(self, fields: Sequence[str], group: int) -> str:
        """The label that the members `.cls` state, empty for none. UserError for other `fields`."""
        index = self.index
        if index is None:  # bare URLs: what their `.cls` is, the task says
            if len(fields) > 1:
                raise UserError(
                    f"data.stream=true reads one label, .cls, not {', '.join(fields)}: pack them with "
                    "`rostro pack` and use data.stream=false"
                )
            return fields[0] if fields else ""
        label = index.schema.cls or ""
        for name in fields:
            if name != label:
                field = index.schema.fields.get(name)
                what = f", {field.kind} of which a sample has any number" if field and field.ragged else ""
                what = f", {field.kind}s beside the images" if field and field.kind in PIECES else what
                raise UserError(
                    f"data.stream=true reads images and {f'the label {label}' if label else 'no label'} of "
                    f"{index.folder}, not {name}{what}: use data.stream=false"
                )
        if group > 1 and label != "identity":
            raise UserError(
                f"data.order=groups needs the identity as .cls, that of {index.folder} is "
                f"{label or 'none'}: use data.order=plain or data.stream=false"
            )
        return label
