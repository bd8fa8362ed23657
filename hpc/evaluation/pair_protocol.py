"""Which pairs are compared: all of a set, or those of a public list, found in the set by their names."""

import functools
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.shard_format.keys import member_key
from data_shards.shard_format.shard_set import ShardSet
from hpc.metrics.pair_list import check_people, read_list, resolve
from hpc.metrics.pairs import Pairs, all_pairs
from hpc.metrics.verification import VerificationResult, bootstrap, measure, score_pairs
from hpc.task import Score


@dataclass
class PairProtocol:
    """The comparisons of an evaluation: pairs of rows, the rows' samples and people, and their origin."""

    pairs: Pairs
    ids: np.ndarray  # [m] ascending sample ids
    identity: np.ndarray  # [m]
    note: dict[str, Any]  # for the report


def trial(shards: ShardSet, *, pairs: Path | None, skip: bool) -> PairProtocol:
    """Return all pairs of the set, or those of the list `pairs`; `skip` leaves out absent images."""
    identity = np.asarray(shards.labels["identity"], np.int64)
    if pairs is None:
        return PairProtocol(
            all_pairs(identity), np.arange(len(shards)), identity, {"kind": "all pairs of the set"}
        )
    listing = read_list(pairs)
    resolved = resolve(listing.pairs, finder(shards), path=pairs, skip=skip)
    check_people(resolved, identity[resolved.ids], path=pairs)
    note = {
        "kind": "pair list",
        "file": pairs.name,
        "format": listing.format,
        "listed": resolved.listed,
        "usable": resolved.listed - resolved.absent,
    }
    if resolved.absent:
        note["first_absent"] = resolved.first_absent
    return PairProtocol(resolved.pairs, resolved.ids, identity[resolved.ids], note)


def finder(shards: ShardSet) -> Callable[[str, int | None], int | None]:
    """Find images of a pair list, (name, number) or (path, None) -> sample id (None = not in the set).

    A list writes `José`, the shards hold its key (keys.py), and disks differ in how they compose the accent.
    Of a path the first folder counts that is a person of the set; the suffix does not.
    """
    names = shards.identity_names()
    index = {unicodedata.normalize("NFC", name): place for place, name in enumerate(names)}

    @functools.cache
    def rows(place: int) -> dict[str, int]:
        start, end = (int(row) for row in shards.identity_start[place : place + 2])
        members = {row: shards.member(row).removesuffix(".jpg") for row in range(start, end)}
        return {member.partition("/")[2]: row for row, member in members.items()}

    def of(name: str, stem: str) -> int | None:
        place = index.get(unicodedata.normalize("NFC", name))
        if place is None:
            return None
        return rows(place).get(member_key(names[place], stem).partition("/")[2])

    def find(name: str, number: int | None) -> int | None:
        if number is not None:
            place = index.get(unicodedata.normalize("NFC", name))
            return None if place is None else of(name, f"{names[place]}_{number:04d}")
        parts = name.split("/")
        for cut in range(1, len(parts)):
            inner = "/".join(parts[cut:])
            for stem in (inner, os.path.splitext(inner)[0]):
                if (row := of(parts[cut - 1], stem)) is not None:
                    return row
        return None

    return find


def score_run(
    embeddings: np.ndarray, on: PairProtocol, *, score: Score, rounds: int, seed: int
) -> tuple[VerificationResult, np.ndarray]:
    """Compute all figures of embeddings [m, d], and the scores [n] of the pairs.

    `rounds` of bootstrapping give the intervals (0 = none).
    """
    scores = score_pairs(embeddings, on.pairs, score)
    verdict = measure(scores, on.pairs)
    if rounds:
        verdict.intervals = bootstrap(scores, on.pairs, on.identity, rounds=rounds, seed=seed)
    return verdict, scores
