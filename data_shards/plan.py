"""What goes where: identities into splits, samples into shards, names into keys. No picture is opened here.

A plan is a function of the listing and the request alone, so any number of workers writes the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_shards.errors import UserError
from data_shards.keys import identity_slugs, stem_slugs
from data_shards.source import Sample

TRAINED, HELD_OUT = "train", "eval"  # the sets of a pack with holdout
LEAST_SHARDS = 8  # shards of even size: workers, and later ranks, share even a small set
LEAST_BYTES = 1 << 20  # but none is cut smaller than this for that reason
UNKNOWN_BYTES = 20_000  # of a picture whose size the source does not know
HEADERS = 2048  # bytes of headers, padding and label of a sample


class Entry(NamedTuple):
    """A sample with its place."""

    key: str
    identity: int
    sample: Sample


@dataclass
class SplitPlan:
    """One set to write: identities by number, and the entries of every shard, identities contiguous."""

    identities: list[str]
    shards: list[list[Entry]]


def group(samples: Iterable[Sample]) -> tuple[dict[str, list[Sample]], list[Sample]]:
    """({identity: its samples, sorted}, unfit samples). Identities sorted by name."""
    found: dict[str, list[Sample]] = {}
    unfit = []
    for sample in samples:
        if sample.unfit:
            unfit.append(sample)
        else:
            found.setdefault(sample.identity, []).append(sample)
    for members in found.values():
        members.sort(key=lambda sample: sample.path)
    return dict(sorted(found.items())), unfit


def fingerprint(
    identities: Mapping[str, list[Sample]], unfit: Sequence[Sample], request: Mapping[str, Any]
) -> str:
    """sha256 of all that decides what a pack writes, short of the pictures' bytes."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
    for members in (*identities.values(), unfit):
        digest.update(repr([tuple(sample) for sample in members]).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def split_identities(
    identities: Sequence[str], *, holdout: float, split: str, seed: int
) -> list[tuple[str, list[str]]]:
    """[(split, its identities)] in packing order: that of a hash of the name.

    With holdout, that share of the identities (at least one) goes to `eval`, the others to `train`.
    """
    shuffled = sorted(identities, key=lambda name: _rank(name, seed, "order"))
    if not holdout:
        return [(split, shuffled)]
    if len(identities) < 2:
        raise UserError(
            f"holdout={holdout}: holds out whole identities, here is only {identities[0]}; leave holdout away"
        )
    count = min(max(1, round(holdout * len(identities))), len(identities) - 1)
    held = set(sorted(identities, key=lambda name: _rank(name, seed, "holdout"))[:count])
    return [
        (TRAINED, [name for name in shuffled if name not in held]),
        (HELD_OUT, [name for name in shuffled if name in held]),
    ]


def _rank(name: str, seed: int, purpose: str) -> bytes:
    return hashlib.sha256(f"{purpose} {seed} {name}".encode("utf-8", "surrogateescape")).digest()


def plan_split(identities: Mapping[str, list[Sample]], *, shard_bytes: int, size: int | None) -> SplitPlan:
    """Keys, identity numbers and shards of one split, in the order of `identities`.

    Shards are even and at most about shard_bytes: the sizes of the files tell, and a picture that is converted
    changes its size. There are at least LEAST_SHARDS of them unless they would be tiny.
    """
    slugs = identity_slugs(sorted(identities))
    entries, weights = [], []
    for number, (name, members) in enumerate(identities.items()):
        first = slugs[name]
        stems = stem_slugs(first, [each.stem for each in members], paths=[each.path for each in members])
        for sample, stem in zip(members, stems, strict=True):
            entries.append(Entry(f"{first}/{stem}", number, sample))
            weights.append(_weight(sample, size))
    total = sum(weights)
    count = max(-(-total // shard_bytes), min(LEAST_SHARDS, total // LEAST_BYTES), 1)
    shards: list[list[Entry]] = [[] for _ in range(count)]
    done = 0
    for entry, weight in zip(entries, weights, strict=True):
        shards[done * count // total].append(entry)
        done += weight
    return SplitPlan(list(identities), [shard for shard in shards if shard])


def _weight(sample: Sample, size: int | None) -> int:
    """Bytes that a sample takes in its shard, estimated."""
    picture = sample.num_bytes or UNKNOWN_BYTES
    if size:  # a square at quality 95 without subsampling takes about 0.55 bytes a pixel
        picture = size * size * 55 // 100
    return picture + HEADERS
