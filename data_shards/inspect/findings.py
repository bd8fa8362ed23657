"""What an audit may find, one kind after another, and between which sets. The audit itself: `audit.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_shards.shard_format.shard_set import ShardSet

KINDS = {  # kind: what it is, for the table; those before `contradiction` may leak
    "identity": "persons in several sets",
    "clip": "clips or events in several sets",
    "exact": "clusters of equal pictures",
    "near": "clusters of nearly equal pictures",
    "contradiction": "clusters whose labels contradict",
    "alike": "pairs that look alike to a network",
    "damaged": "images that do not decode",
    "empty": "images without content",
    "tiny": "images too small",
    "blurred": "images without detail",
}


class Finding(NamedTuple):
    """One thing that was found."""

    kind: str
    members: tuple[int, ...]  # images, by their numbers in all sets together
    note: str
    badness: float  # the worst of a kind have the largest
    leaks: bool = False  # a split is not one: training and held-out sets share this


class Sets:
    """The sets of an audit: their images numbered one after another, and which of them are apart."""

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        self.sets = list(sets)
        self.ends = np.cumsum([0, *map(len, self.sets)])
        self.splits = [str(shards.manifest["split"]) for shards in self.sets]
        names = [f"{shards.name}/{split}" for shards, split in zip(self.sets, self.splits, strict=True)]
        self.names = [
            name if names.count(name) == 1 else str(shards.folder)
            for name, shards in zip(names, self.sets, strict=True)
        ]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def set_of(self, number: int) -> int:
        """The number of the set that holds an image."""
        return int(np.searchsorted(self.ends, number, "right")) - 1

    def place(self, number: int) -> tuple[ShardSet, int]:
        """(set, row) of an image."""
        which = self.set_of(number)
        return self.sets[which], number - int(self.ends[which])

    def are_across(self, members: Sequence[int]) -> bool:
        """Whether these images are in several sets."""
        return len({self.set_of(number) for number in members}) > 1

    def leak(self, members: Sequence[int]) -> bool:
        """Whether these images are on two sides of a split: in `train` and `eval`, not in two `train`."""
        return len({self.splits[self.set_of(number)] for number in members}) > 1

    def described(self, members: Sequence[int]) -> str:
        """The sets of these images in a few words: `lfw/train 2, lfw/eval`."""
        counts = np.bincount([self.set_of(number) for number in members], minlength=len(self.sets)).tolist()
        named = zip(self.names, counts, strict=True)
        return ", ".join(f"{name} {count}" if count > 1 else name for name, count in named if count)

    def to_json(self, number: int) -> dict[str, Any]:
        """An image in the JSON of an audit: its set, row, member, and labels of fixed size."""
        shards, row = self.place(number)
        return {
            "set": self.names[self.set_of(number)],
            "row": row,
            "member": shards.member(row),
            **{name: shown_label(shards, name, row) for name in labels_of(shards)},
        }


def labels_of(shards: ShardSet) -> list[str]:
    """Names of the labels that an image can contradict: single classes and numbers, and bits."""
    return [
        name
        for name, field in shards.schema.columns.items()
        if name != "identity"
        and (field.kind == "bits" or (field.kind in ("class", "value") and not field.shape))
    ]


def shown_label(shards: ShardSet, name: str, row: int) -> str | int | float | list[str] | None:
    """A label as a person reads it: a class by name, bits as the names of those set; None where unknown."""
    field, value = shards.schema.columns[name], np.asarray(shards.labels[name][row])
    if field.kind == "bits":
        names = field.names or tuple(map(str, range(value.size)))
        return [word for word, bit in zip(names, value.ravel().tolist(), strict=True) if bit == 1]
    if field.unknown is not None and value == field.unknown:
        return None
    plain: int | float = value.item()
    return field.names[int(plain)] if field.kind == "class" else plain


def by_kind(findings: Sequence[Finding]) -> Mapping[str, list[Finding]]:
    """{kind: its findings, the worst first}, kinds in the order of KINDS, only those found."""
    found = {kind: [each for each in findings if each.kind == kind] for kind in KINDS}
    return {
        kind: sorted(each, key=lambda finding: (-finding.leaks, -finding.badness, finding.members))
        for kind, each in found.items()
        if each
    }
