"""How to pack: what the user asked for, checked, and the facts of it by which two packs are the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_shards.errors import UserError
from data_shards.shard_format.keys import slug
from data_shards.shard_format.schema import Schema
from data_shards.sources.base import Source

# How `layout.split_identities` cuts, for the manifest.
CUT = "eval: hash < holdout, val: hash >= 1 - val"
EXACT_CUT = "of each class, eval: lowest hashes, val: highest, nearest whole numbers to the shares"


@dataclass(frozen=True)
class Request:
    """How to pack, all of it part of what a set is. Raises UserError for a value out of range."""

    split: str = "train"  # name of the set if no identities are held out
    size: int = 0  # side of the stored squares in pixels (0 = images keep their size)
    holdout: float = 0.0  # approximate share of the identities that goes to OUT/eval
    val: float = 0.0  # approximate share that goes to OUT/val
    shard_mb: float = 100.0  # approximate size of the largest shard, in 10^6 bytes
    verify: str = "decode"  # decode | none
    seed: int = 0  # of the order of the identities and the choice of those held out
    exact: bool = False  # the shares are exact within every class
    name: str = ""  # of the set and its files ("" = the source's name)
    options: Mapping[str, Any] = field(default_factory=dict)  # of the source

    def __post_init__(self) -> None:
        checks = {
            "holdout": (0 <= self.holdout < 1, "a share of the identities, from 0 to below 1, e.g. 0.1"),
            "val": (
                0 <= self.val < 1 and self.holdout + self.val < 1,
                "a share of the identities, from 0 and, with holdout, below 1, e.g. 0.1",
            ),
            "size": (
                self.size == 0 or 8 <= self.size <= 8192,
                "pixels from 8 to 8192, or 0 to keep all sizes",
            ),
            "shard_mb": (0.01 <= self.shard_mb <= 8000, "megabytes from 0.01 to 8000, e.g. 100"),
            "verify": (self.verify in ("decode", "none"), "decode or none"),
            "split": (
                bool(self.split) and self.split == slug(self.split) and "/" not in self.split,
                "a plain name such as train or test",
            ),
            "name": (
                not self.name or (slug(self.name) == self.name and "/" not in self.name),
                "a plain name",
            ),
        }
        for key, (good, remedy) in checks.items():
            if not good:
                raise UserError(f"{key}={getattr(self, key)}: type {remedy}")
        if self.exact and not self.holdout + self.val:
            raise UserError("holdout.exact=true divides nothing: type holdout= or val= beside it")


def source_kind(source: Source) -> str:
    """What the user typed as source=, which is the name of the source's module."""
    return type(source).__module__.rpartition(".")[2]


def request_facts(source: Source, schema: Schema, request: Request, name: str) -> dict[str, Any]:
    """All that decides what is written, other than the samples themselves; name: of the set."""
    labels = schema.to_json()
    facts = {
        "schema": labels["schema"],
        "source": source_kind(source),
        **labels,
        **{key: value for key, value in vars(request).items() if key not in ("options", "val", "exact")},
        "options": dict(request.options),
        "name": name,
    }
    if request.holdout or request.val:  # older sets were cut at a count of people, and are other sets
        facts |= {"val": request.val, "cut": EXACT_CUT if request.exact else CUT}
    return facts
