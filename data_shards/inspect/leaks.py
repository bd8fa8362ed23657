"""Persons and clips that are in several sets, by the names that their packs state."""

import itertools
from collections.abc import Iterator

import numpy as np

from data_shards.inspect.findings import Finding, Sets
from data_shards.shard_format.people import groups_of, hashes, numbered, one_set

MOST = 8  # images of one finding that are named, of each set


def find_shared(sets: Sets) -> Iterator[Finding]:
    """Yield a finding for each person, and each clip, that two or more sets share."""
    people = [_people(sets, number) for number in range(len(sets.sets))]
    clips = [_clips(sets, number) for number in range(len(sets.sets))]
    found: dict[tuple[str, int], dict[int, None]] = {}
    for one, other in itertools.combinations(range(len(sets.sets)), 2):
        same = _one_set(sets, one, other)
        for code in sorted(people[one].keys() & people[other].keys()):
            if same or not numbered(people[one][code][0]):
                found.setdefault(("identity", code), {}).update({one: None, other: None})
        for code in sorted(clips[one].keys() & clips[other].keys()) if same else ():
            found.setdefault(("clip", code), {}).update({one: None, other: None})
    for (kind, code), places in found.items():
        members: list[int] = []
        note = ""
        for place in places:
            if kind == "identity":
                note, low, high = people[place][code]
                rows = np.arange(low, high)
            else:
                rows = clips[place][code]
                note = note or sets.sets[place].member(int(rows[0]))
            members += (rows[:MOST] + int(sets.ends[place])).tolist()
        yield Finding(kind, tuple(sorted(members)), note, float(len(members)), sets.leak(members))


def _one_set(sets: Sets, one: int, other: int) -> bool:
    a, b = sets.sets[one], sets.sets[other]
    return one_set(a.name, a.manifest["source"], b.name, b.manifest["source"])


def _people(sets: Sets, number: int) -> dict[int, tuple[str, int, int]]:
    """{hash of the name: (name, first row, last row + 1)} of the known people of a set."""
    shards = sets.sets[number]
    names = shards.identity_names()
    start = np.asarray(shards.identity_start).astype(np.int64)
    rows = zip(names, start[:-1].tolist(), start[1:].tolist(), strict=True)
    return dict(zip(hashes(names).tolist(), rows, strict=True))


def _clips(sets: Sets, number: int) -> dict[int, np.ndarray]:
    """{hash of the group: its rows} of a set whose source states groups."""
    column = groups_of(sets.sets[number])
    if column is None:
        return {}
    order = np.argsort(column, kind="stable")
    codes, first = np.unique(column[order], return_index=True)
    parts = np.split(order, first[1:])
    return {code: rows for code, rows in zip(codes.tolist(), parts, strict=True) if code}
