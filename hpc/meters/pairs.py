"""Which pictures are compared: every pair of an evaluation set up to a bound, or a public list.

Rows number the pictures of the set by ascending sample id, so nothing depends on who read what.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards import counted
from hpc.errors import UserError

CAP = 2_000_000  # pairs of either kind


@dataclass(frozen=True)
class Pairs:
    """n pairs of rows. `fold`: of LFW's protocol; -1: in none."""

    first: np.ndarray  # [n] int64 rows
    second: np.ndarray
    same: np.ndarray  # [n] bool
    fold: np.ndarray  # [n] int64
    total_genuine: int  # as many as there are; more than here where the cap holds
    total_impostors: int
    balanced: bool  # accuracy weighs both kinds the same (all pairs: impostors outnumber genuine ones by far)

    def __len__(self) -> int:
        return len(self.first)


def _triangle(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair number -> (i, j), i < j, in the order (0,1) (0,2) (1,2) (0,3) ..."""
    j = ((1.0 + np.sqrt(1.0 + 8.0 * index.astype(np.float64))) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > index  # the square root of a large number may be one off
    j += (j + 1) * j // 2 <= index
    return index - j * (j - 1) // 2, j


def _draw(total: int, cap: int, stream: np.uint64) -> np.ndarray:
    """All of [0, total), or `cap` of them drawn without replacement."""
    return np.arange(total) if total <= cap else counted.permute(stream, np.arange(cap), total)


def all_pairs(identity: np.ndarray, *, cap: int = CAP, seed: int = 0, folds: int = 10) -> Pairs:
    """Pairs of pictures [n] of these identities: all, or `cap` genuine and `cap` impostor ones drawn by hash.

    Folds split identities: a pair whose people lie in two folds is in none. UserError where a kind is empty.
    """
    people, code = np.unique(identity, return_inverse=True)
    n, counts = len(identity), np.bincount(code)
    genuine_total = int((counts * (counts - 1) // 2).sum())
    impostor_total = n * (n - 1) // 2 - genuine_total
    if not genuine_total or not impostor_total:
        lacking = "two pictures of one identity" if not genuine_total else "two identities"
        raise UserError(
            f"{n} pictures of {len(people)} identities hold no {lacking}: evaluate on more people"
        )

    # Genuine pairs are numbered through the identities; `by_person` lists the rows of each one in turn.
    by_person = np.argsort(code, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ends = np.cumsum(counts * (counts - 1) // 2)
    chosen = _draw(genuine_total, cap, counted.key(seed, "genuine pairs"))
    who = np.searchsorted(ends, chosen, side="right")
    i, j = _triangle(chosen - (ends[who] - counts[who] * (counts[who] - 1) // 2))
    genuine = by_person[starts[who] + i], by_person[starts[who] + j]

    impostor = _impostors(code, impostor_total, cap, counted.key(seed, "impostor pairs"))
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
        i, j = _triangle(counted.permute(stream, np.arange(taken, taken + stretch), every))
        keep = code[i] != code[j]
        parts.append((i[keep], j[keep]))
        have, taken = have + int(keep.sum()), taken + stretch
    first, second = (np.concatenate(column)[:cap] for column in zip(*parts, strict=True))
    return first, second


@dataclass(frozen=True)
class Listed:
    """A line of a pair list: two pictures as (name, number)."""

    first: tuple[str, int]
    second: tuple[str, int]
    fold: int

    @property
    def same(self) -> bool:
        return self.first[0] == self.second[0]


def read_list(path: Path) -> list[Listed]:
    """The official LFW format: `folds n` or `n`, then for each fold n genuine and n impostor lines.

    Genuine: `Name n1 n2`. Impostor: `Name1 n1 Name2 n2`. Without folds, ten blocks of each kind are folds.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"pairs={path} cannot be read ({error}): give a list such as LFW's pairs.txt"
        ) from None
    if not lines or len(lines[0]) > 2 or not all(word.isdigit() for word in lines[0]):
        raise UserError(f"pairs={path} does not begin with the number of folds and pairs: LFW's has `10 300`")
    folds, each = (int(lines[0][0]), int(lines[0][1])) if len(lines[0]) == 2 else (1, int(lines[0][0]))
    if len(lines) - 1 != folds * 2 * each:
        raise UserError(
            f"pairs={path} has {len(lines) - 1} pairs, its first line says {folds * 2 * each}: "
            "take the whole list"
        )
    found: list[Listed] = []
    for number, words in enumerate(lines[1:]):
        fold, place = divmod(number, 2 * each)
        if folds == 1:
            fold = place % each * 10 // each
        genuine = len(words) == 3
        numbers = words[1:] if genuine else words[1::2]
        if len(words) not in (3, 4) or not all(word.isdigit() for word in numbers):
            shown = " ".join(words)
            raise UserError(f"pairs={path}: `{shown}` is no pair: type `Name n1 n2` or `Name1 n1 Name2 n2`")
        second = words[0] if genuine else words[2]
        found.append(Listed((words[0], int(numbers[0])), (second, int(numbers[1])), fold))
    return found


@dataclass(frozen=True)
class Resolved:
    """A pair list on a set: the pairs whose pictures are there, by row of `ids`."""

    pairs: Pairs
    ids: np.ndarray  # [m] ascending sample ids of the pictures that the pairs need
    listed: int
    absent: int  # pairs that name a picture which is not there
    first_absent: str


def resolve(
    listed: list[Listed], find: Callable[[str, int], int | None], *, path: Path, skip: bool
) -> Resolved:
    """Find the listed pictures. `find(name, number)`: sample id of `<Name>/<Name>_%04d`, None: not there.

    Pairs with an absent one: UserError, or counted and left out (`skip`).
    """
    usable: list[tuple[int, int, Listed]] = []
    absent, first_absent = 0, ""
    for pair in listed:
        named = (pair.first, pair.second)
        here = [find(*picture) for picture in named]
        if here[0] is not None and here[1] is not None:
            usable.append((here[0], here[1], pair))
            continue
        absent += 1
        first_absent = first_absent or next(
            f"{n}/{n}_{number:04d}" for (n, number), row in zip(named, here, strict=True) if row is None
        )
    _check_usable(path, usable=[pair for *_, pair in usable], absent=absent, first=first_absent, skip=skip)
    columns = np.array([(a, b) for a, b, _ in usable], np.int64)
    ids, rows = np.unique(columns, return_inverse=True)
    rows = rows.reshape(columns.shape)
    same = np.array([pair.same for *_, pair in usable])
    fold = np.array([pair.fold for *_, pair in usable], np.int64)
    genuine = int(same.sum())
    # The whole list is balanced by its makers; what is left of it need not be.
    kept = len(same) - genuine
    pairs = Pairs(rows[:, 0], rows[:, 1], same, fold, genuine, kept, balanced=absent > 0)
    return Resolved(pairs, ids, len(listed), absent, first_absent)


def _check_usable(path: Path, *, usable: list[Listed], absent: int, first: str, skip: bool) -> None:
    """Refuse a list with absent pictures, unless they may be skipped and both kinds of pairs are left."""
    both = len({pair.same for pair in usable}) == 2
    if not absent or (skip and both):
        return
    count = f"only {len(usable)} of {len(usable) + absent} pairs are usable"
    remedy = "type missing=skip to use them"
    if not both:
        kind = "" if not usable else (", all genuine" if usable[0].same else ", all impostors")
        count, remedy = count + kind, "give data= a set that holds the people of the list"
    raise UserError(f"pairs={path} names pictures that are not in the set, first {first}; {count}: {remedy}")
