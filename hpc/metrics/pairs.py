"""Chooses the pairs that are compared: all of an evaluation set, up to a bound (lists: `pair_list.py`).

Rows number the images of the set by ascending sample id, so nothing depends on who read what.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError

CAP = 2_000_000  # pairs of either kind


@dataclass(frozen=True)
class Pairs:
    """n pairs of rows. `fold`: by LFW's protocol (-1 = in none)."""

    first: np.ndarray  # [n] int64 rows
    second: np.ndarray
    same: np.ndarray  # [n] bool
    fold: np.ndarray  # [n] int64
    total_genuine: int  # of the whole set; more than are listed where the cap holds
    total_impostors: int
    balanced: bool  # accuracy weighs both kinds the same (all pairs: impostors outnumber genuine ones by far)

    def __len__(self) -> int:
        return len(self.first)


def _triangle(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs (i, j), i < j, of these numbers, counted as (0,1) (0,2) (1,2) (0,3) ..."""
    j = ((1.0 + np.sqrt(1.0 + 8.0 * index.astype(np.float64))) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > index  # the square root of a large number may be one off
    j += (j + 1) * j // 2 <= index
    return index - j * (j - 1) // 2, j


def _draw(total: int, cap: int, stream: np.uint64) -> np.ndarray:
    """Return all of [0, total), or `cap` of them drawn without replacement."""
    return np.arange(total) if total <= cap else counter_rng.permute(stream, np.arange(cap), total)


def all_pairs(identity: np.ndarray, *, cap: int = CAP, seed: int = 0, folds: int = 10) -> Pairs:
    """Pair the images with these identities [n]: all pairs, or `cap` of each kind drawn by hash.

    Folds split identities: a pair whose people are in two folds is in none. An image of an unknown person
    (-1) is in no pair. UserError where a kind is empty.
    """
    rows = np.flatnonzero(identity >= 0)
    if len(rows) < len(identity):
        known = all_pairs(identity[rows], cap=cap, seed=seed, folds=folds)
        return replace(known, first=rows[known.first], second=rows[known.second])
    people, code = np.unique(identity, return_inverse=True)
    n, counts = len(identity), np.bincount(code)
    genuine_total = int((counts * (counts - 1) // 2).sum())
    impostor_total = n * (n - 1) // 2 - genuine_total
    if not genuine_total or not impostor_total:
        lacking = "two images of one identity" if not genuine_total else "two identities"
        raise UserError(f"{n} images of {len(people)} identities hold no {lacking}: evaluate on more people")

    # Genuine pairs are numbered through the identities; `by_person` lists the rows of each one in turn.
    by_person = np.argsort(code, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ends = np.cumsum(counts * (counts - 1) // 2)
    numbers = _draw(genuine_total, cap, counter_rng.key(seed, "genuine pairs"))
    who = np.searchsorted(ends, numbers, side="right")
    i, j = _triangle(numbers - (ends[who] - counts[who] * (counts[who] - 1) // 2))
    genuine = by_person[starts[who] + i], by_person[starts[who] + j]

    impostor = _impostors(code, impostor_total, cap, counter_rng.key(seed, "impostor pairs"))
    first = np.concatenate([genuine[0], impostor[0]])
    second = np.concatenate([genuine[1], impostor[1]])
    same = np.arange(len(first)) < len(genuine[0])
    parts = np.arange(len(people)) % max(min(folds, len(people) // 2), 1)
    fold = np.where(parts[code[first]] == parts[code[second]], parts[code[first]], -1)
    return Pairs(first, second, same, fold, genuine_total, impostor_total, balanced=True)


def _impostors(code: np.ndarray, total: int, cap: int, stream: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    n = len(code)
    every = n * (n - 1) // 2
    if total <= cap:
        i, j = _triangle(np.arange(every))
        keep = code[i] != code[j]
        return i[keep], j[keep]
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    have = taken = 0
    while have < cap:  # a stretch of the permutation of all pairs, less the genuine ones
        stretch = min(int((cap - have) * every / total) + 16, every - taken)
        i, j = _triangle(counter_rng.permute(stream, np.arange(taken, taken + stretch), every))
        keep = code[i] != code[j]
        parts.append((i[keep], j[keep]))
        have, taken = have + int(keep.sum()), taken + stretch
    first, second = (np.concatenate(column)[:cap] for column in zip(*parts, strict=True))
    return first, second
