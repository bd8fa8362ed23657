"""What goes where: identities into splits, samples into shards, names into keys. It opens no image.

A plan is a function of the listing and the request alone, so any number of workers writes the same bytes.
"""

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.keys import (
    UNKNOWN,
    identity_slugs,
    key_room,
    slug,
    stem_slugs,
    visible,
    with_whole_stem,
)
from data_shards.sources.base import Sample

TRAINED, VALIDATION, HELD_OUT = "train", "val", "eval"  # the sets of a pack with holdout= or val=
Division = list[tuple[str, list[str]]]  # [(split, its groups)]
LEAST_SHARDS = 8  # shards of even size, so that workers, and later ranks, share even a small set
LEAST_BYTES = 1 << 20  # of a shard that is cut only for that reason
UNKNOWN_BYTES = 20_000  # of an image whose size the source does not know
HEADERS = 2048  # bytes of headers, padding and label of a sample


class Entry(NamedTuple):
    """A sample with its place."""

    key: str
    identity: int  # -1 = unknown
    sample: Sample


@dataclass
class SplitPlan:
    """One set to write: known people by number, and the entries of every shard, people contiguous."""

    identities: list[str]
    shards: list[list[Entry]]


def group(samples: Iterable[Sample]) -> tuple[dict[str, list[Sample]], list[Sample]]:
    """({identity: its samples, sorted by path}, unfit samples). Identities are sorted by name.

    Each image of an unknown person is an identity of its own, UNKNOWN and its path.
    """
    identities: dict[str, list[Sample]] = {}
    unfit = []
    for sample in samples:
        if sample.unfit:
            unfit.append(sample)
        else:
            identities.setdefault(sample.identity or f"{UNKNOWN}{sample.path}", []).append(sample)
    for members in identities.values():
        members.sort(key=lambda sample: sample.path)
    return dict(sorted(identities.items())), unfit


def fingerprint(
    identities: Mapping[str, list[Sample]], unfit: Sequence[Sample], request: Mapping[str, Any]
) -> str:
    """The sha256 of all that decides what a pack writes, except for the images' bytes."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
    for members in (*identities.values(), unfit):
        facts = [_facts(sample) for sample in members]
        digest.update(repr(facts).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _facts(sample: Sample) -> tuple[Any, ...]:
    """The sample as a tuple, with the hash of each array in its place: numpy shortens what it prints.

    A sample without the newer entries is what it was before there were any, so that older packs are
    recognised.
    """
    newer = 2 if sample.group or sample.split else 4
    facts = tuple(sample) if sample.mended or sample.extra else tuple(sample)[:-newer]
    if not any(isinstance(label, np.ndarray) for label in sample.labels):
        return facts
    labels = [
        (label.dtype.str, label.shape, hashlib.sha256(label.tobytes()).hexdigest())
        if isinstance(label, np.ndarray)
        else label
        for label in sample.labels
    ]
    place = sample._fields.index("labels")
    return (*facts[:place], tuple(labels), *facts[place + 1 :])


def is_unknown(identity: str) -> bool:
    """Whether this is not a person, but the image of an unknown one."""
    return identity.startswith(UNKNOWN)


def split_samples(
    identities: Mapping[str, list[Sample]],
    divide: Callable[[list[str]], Division],
    *,
    seed: int,
    cluster: bool = True,
) -> list[tuple[str, dict[str, list[Sample]]]]:
    """[(split, {identity: its samples})], identities in packing order; no group is in two splits.

    The order is that of a hash of the names, or of the paths for unknown people, who come last, and where
    `cluster` is false: then each identity has one image.

    Official splits win; `divide` gives [(split, its groups)] of all other groups. Raises UserError for
    a group of two official splits, or a split that is empty.
    """
    parts = _official_splits(itertools.chain.from_iterable(identities.values()))
    free = [name for name, part in parts.items() if not part]
    parts = {name: part for name, part in parts.items() if part}
    order = list(dict.fromkeys(parts.values()))
    if free:
        divided = divide(free)
        parts |= {name: part for part, names in divided for name in names}
        order = list(dict.fromkeys([*(part for part, _ in divided), *order]))

    def place(name: str) -> tuple[bool, bytes]:
        unknown = is_unknown(name)
        by_path = unknown or not cluster
        return unknown, rank(identities[name][0].path if by_path else name, seed, "order")

    shuffled = sorted(identities, key=place)
    sets: dict[str, dict[str, list[Sample]]] = {part: {} for part in order}
    for name in shuffled:
        for sample in identities[name]:
            sets[parts[group_of(sample)]].setdefault(name, []).append(sample)
    return list(sets.items())


def _official_splits(samples: Iterable[Sample]) -> dict[str, str]:
    """{group: the split that the source states, or ""}. Raises UserError for a group of two."""
    first: dict[str, Sample] = {}
    for sample in samples:
        name = group_of(sample)
        other = first.setdefault(name, sample)
        if other.split != sample.split:
            raise UserError(
                f"split={sample.split!r} of {visible(sample.path)}: its group {visible(name)!r} is also in "
                f"split={other.split!r} ({visible(other.path)}); correct the source, or its lists"
            )
        if sample.split and (sample.split != slug(sample.split) or "/" in sample.split):
            raise UserError(
                f"split={sample.split!r} of {visible(sample.path)}: is not a plain name; type one, e.g. test"
            )
    return {name: sample.split for name, sample in first.items()}


def group_of(sample: Sample) -> str:
    """What must not be split of this sample: its group, or else its identity, or else its path."""
    return sample.group or sample.identity or sample.path


def split_identities(
    identities: Sequence[str], *, holdout: float, val: float = 0.0, split: str, seed: int
) -> list[tuple[str, list[str]]]:
    """[(split, its identities)] in packing order: that of a hash of the name.

    With holdout or val, shares from 0 to below 1, each identity has a place in [0, 1), a hash of seed and
    name alone: `eval` is what is below holdout, `val` what is at 1 - val or above, `train` the rest. So no
    person moves when others come or go, and a larger share takes people from `train` only. Raises UserError
    if a split is empty.
    """
    shuffled = sorted(identities, key=lambda name: rank(name, seed, "order"))
    if not holdout and not val:
        return [(split, shuffled)]
    parts: dict[str, list[str]] = {TRAINED: []}
    parts |= {VALIDATION: []} if val else {}
    parts |= {HELD_OUT: []} if holdout else {}
    for name in shuffled:
        parts[_part(name, holdout, val, seed)].append(name)
    empty = [part for part, names in parts.items() if not names]
    if empty:
        key = {HELD_OUT: f"holdout={holdout:g}", VALIDATION: f"val={val:g}"}.get(
            empty[0], f"holdout={holdout:g} val={val:g}"
        )
        raise UserError(
            f"{key}: none of {len(identities)} identities falls into {empty[0]}, which is decided by a hash "
            f"of each name alone; {_remedy(identities, holdout, val)}"
        )
    return list(parts.items())


def _part(name: str, holdout: float, val: float, seed: int) -> str:
    place = int.from_bytes(rank(unicodedata.normalize("NFC", name), seed, "holdout")[:8], "big") / 2**64
    if place < holdout:
        return HELD_OUT
    return VALIDATION if place >= 1 - val else TRAINED


def _remedy(identities: Sequence[str], holdout: float, val: float) -> str:
    """What to type where a part is empty: the first seed below 100 by which none is, or a larger share."""
    parts = {TRAINED} | ({HELD_OUT} if holdout else set()) | ({VALIDATION} if val else set())
    for seed in range(100) if len(identities) < 1000 else ():
        if {_part(name, holdout, val, seed) for name in identities} == parts:
            return f"type seed={seed}, or a larger share"
    return "type a larger share, or leave it out"


def rank(name: str, seed: int, purpose: str) -> bytes:
    """A hash by which names are ordered."""
    return hashlib.sha256(f"{purpose} {seed} {name}".encode("utf-8", "surrogateescape")).digest()


def plan_split(
    identities: Mapping[str, list[Sample]],
    *,
    shard_bytes: int,
    size: int | None,
    extensions: Sequence[str] = (),
) -> SplitPlan:
    """Keys, identity numbers and shards of one split, in the order of `identities`.

    extensions: of the members that a sample may have.

    size: side of the stored squares in pixels (None = images keep their size). Shards are even and at most
    about shard_bytes: they are cut by the sizes of the files, and a converted image changes its size. There
    are at least LEAST_SHARDS of them, unless they would be smaller than LEAST_BYTES.
    """
    slugs = identity_slugs(sorted(identities))
    people = [name for name in identities if not is_unknown(name)]
    numbers = {name: number for number, name in enumerate(people)}
    entries, weights, longest = [], [], key_room(extensions)
    for name, members in identities.items():
        first, number = slugs[name], numbers.get(name, -1)
        if is_unknown(name):
            first = with_whole_stem(first, members[0].stem, whole=name, longest=longest)
        paths = [each.path for each in members]
        stems = stem_slugs(first, [each.stem for each in members], paths=paths, longest=longest)
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
    return SplitPlan(people, [shard for shard in shards if shard])


def _weight(sample: Sample, size: int | None) -> int:
    """The bytes that a sample will take in its shard, estimated."""
    image_bytes = sample.num_bytes or UNKNOWN_BYTES
    if size:  # a square at quality 95 without subsampling takes about 0.55 bytes a pixel
        image_bytes = size * size * 55 // 100
    return image_bytes + HEADERS
