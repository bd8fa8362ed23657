"""A balanced part of a packed set, as many images or persons of each group, and weights that even groups out.

Who is chosen is decided by a hash of the seed and the row, or the person, so a larger number keeps those whom
a smaller one has chosen. `write_balance` writes what `data.rows=@FILE` and `data.weights=@FILE` read
(data_shards/sampling/row_file.py).
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.files import TEMPORARY, write_json
from data_shards.inspect.groups import crossed, named_group
from data_shards.inspect.problems import index_names
from data_shards.sampling.row_file import write_list
from data_shards.shard_format.shard_set import ShardSet


@dataclass(frozen=True)
class Balanced:
    """The part of a set that was chosen, and the weights of all of its rows."""

    names: tuple[str, ...]  # of the groups
    codes: np.ndarray  # [n]: the group of each row, -1 = unknown, or its group is too small
    rows: np.ndarray  # int64 [k], rising: the chosen ones
    weights: np.ndarray  # float32 [n]: each group weighs the same; an image of the smallest 1, of no group 0
    before: list[int]  # images of each group
    after: list[int]
    people: list[tuple[int, int]]  # persons of each group in the set and in the part; [] where none is known
    left_out: dict[str, int]  # groups with too few images, and how many
    unknown: int  # images without a group


def balance(
    shards: ShardSet,
    by: Sequence[str],
    *,
    per_group: int = 0,
    identities: int = 0,
    least: int = 1,
    seed: int = 0,
) -> Balanced:
    """Choose as many images, or persons, of each group of a set, and weigh the groups equally.

    by: labels that split the set together, see `groups.named_group`. per_group: images of each group (0 = as
    many as the smallest has, or with `identities` all). identities: persons of each group, with those of
    their images that are in it (0 = persons do not count); images are then spread evenly over them. A person
    belongs to the group of most of their images. least: groups with fewer images are left out.

    Raises UserError where a label makes no groups, or a group has too few images or persons.
    """
    group = crossed([named_group(shards, name, key="by") for name in by])
    counts = np.bincount(group.codes[group.codes >= 0], minlength=len(group.names))
    kept = np.flatnonzero(counts >= max(1, least))
    if not len(kept):
        most = f"the largest has {counts.max()}" if len(counts) else "no image has one"
        raise UserError(f"least={least}: no group of {shards.folder} has so many ({most}): use a smaller one")
    number = np.full(len(counts) + 1, -1)
    number[kept] = np.arange(len(kept))
    codes = number[group.codes]  # -1 is the last one
    names = tuple(group.names[code] for code in kept.tolist())
    sizes = counts[kept]
    weights = np.where(codes >= 0, sizes.min() / sizes[codes], 0).astype(np.float32)
    identity = np.asarray(shards.labels["identity"]).astype(np.int64)
    if identities:
        _refuse_without_people(shards, identities)
        places = _of_people(codes, identity, identities, names, seed)
    else:
        places = np.flatnonzero(codes >= 0)
    wanted = per_group or (0 if identities else int(sizes.min()))
    if wanted:
        places = _images(places, codes, identity if identities else None, wanted, names, seed)
    after = np.bincount(codes[places], minlength=len(names))
    return Balanced(
        names,
        codes,
        np.sort(places),
        weights,
        sizes.tolist(),
        after.tolist(),
        _people(codes, identity, places, len(names)),
        {group.names[code]: int(counts[code]) for code in np.flatnonzero(counts < max(1, least)).tolist()},
        int((group.codes < 0).sum()),
    )


def _refuse_without_people(shards: ShardSet, identities: int) -> None:
    if len(shards.identity_start) - 1 == int(shards.identity_start[-1]):
        raise UserError(
            f"identities={identities}: {shards.folder} knows nobody by more than one image: use per_group=N"
        )


def _of_people(
    codes: np.ndarray, identity: np.ndarray, wanted: int, names: Sequence[str], seed: int
) -> np.ndarray:
    """The rows of `wanted` persons of each group. Raises UserError for a group with fewer."""
    known = np.flatnonzero((codes >= 0) & (identity >= 0))
    pairs, images = np.unique(np.stack([identity[known], codes[known]]), axis=1, return_counts=True)
    order = np.lexsort(
        (pairs[1], -images, pairs[0])
    )  # the group of most images first, of equals the first one
    person, code = pairs[:, order]
    first = np.concatenate([[True], person[1:] != person[:-1]])
    person, code = person[first], code[first]
    drawn = counter_rng.bits(counter_rng.key(seed, "balance people"), person, 1)[:, 0]
    nth = _places_within(code, drawn)
    _refuse_few(np.bincount(code, minlength=len(names)), wanted, names, "identities", "persons")
    chosen = dict(zip(person[nth < wanted].tolist(), code[nth < wanted].tolist(), strict=True))
    return known[
        [
            chosen.get(who) == what
            for who, what in zip(identity[known].tolist(), codes[known].tolist(), strict=True)
        ]
    ]


def _images(
    places: np.ndarray,
    codes: np.ndarray,
    identity: np.ndarray | None,
    wanted: int,
    names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """`wanted` of the rows `places` of each group, spread over the persons where `identity` is given."""
    group = codes[places]
    _refuse_few(np.bincount(group, minlength=len(names)), wanted, names, "per_group", "images")
    drawn = counter_rng.bits(counter_rng.key(seed, "balance images"), places, 1)[:, 0]
    turn = np.zeros(len(places), np.int64) if identity is None else _places_within(identity[places], drawn)
    return places[_places_within(group, drawn, turn) < wanted]


def _places_within(parts: np.ndarray, drawn: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """The place, from 0, of each element [n] among those of its part, by `first` and then `drawn`."""
    order = np.lexsort((drawn, parts) if first is None else (drawn, first, parts))
    ordered = parts[order]
    starts = np.searchsorted(ordered, ordered, "left")
    places = np.empty(len(parts), np.int64)
    places[order] = np.arange(len(parts)) - starts
    return places


def _refuse_few(counts: np.ndarray, wanted: int, names: Sequence[str], key: str, what: str) -> None:
    if counts.min() < wanted:
        least = int(np.argmin(counts))
        raise UserError(
            f"{key}={wanted}: the group `{names[least]}` has {counts[least]} {what}: type {counts[least]} "
            "or fewer, or leave small groups out by least=N"
        )


def _people(codes: np.ndarray, identity: np.ndarray, rows: np.ndarray, groups: int) -> list[tuple[int, int]]:
    """(persons in the set, persons in the part) of each group; [] where nobody has two images."""
    if (identity < 0).all() or len(np.unique(identity[identity >= 0])) == (identity >= 0).sum():
        return []
    part = np.zeros(len(codes), bool)
    part[rows] = True
    known = identity >= 0
    return [
        (
            len(np.unique(identity[known & (codes == code)])),
            len(np.unique(identity[known & part & (codes == code)])),
        )
        for code in range(groups)
    ]


def write_balance(
    out: Path, shards: ShardSet, by: Sequence[str], part: Balanced, facts: dict[str, Any]
) -> None:
    """Write `out`, a new folder: rows.csv, the part; weights.csv, all rows of a group; balance.json.

    facts: what was asked for, for the JSON. Raises OSError; nothing is left half written.
    """
    draft = out.with_name(f"{TEMPORARY}{os.getpid()}-{out.name}")
    draft.mkdir(parents=True)
    try:
        keys = [
            key
            for number, entry in enumerate(shards.manifest["shards"])
            for key in index_names(shards.folder, shards.manifest, number) or [""] * entry["samples"]
        ]
        title = ",".join(by)
        for name, rows, weights in (
            ("rows.csv", part.rows, np.ones(len(shards), np.float32)),
            ("weights.csv", np.flatnonzero(part.codes >= 0), part.weights),
        ):
            notes = ((keys[row], part.names[part.codes[row]]) for row in rows.tolist())
            write_list(
                draft / name,
                shards.digest,
                rows.tolist(),
                weights[rows].tolist(),
                names=("member", title),
                notes=notes,
            )
        groups = {
            name: {"before": before, "after": after}
            for name, before, after in zip(part.names, part.before, part.after, strict=True)
        }
        for name, people in zip(part.names, part.people, strict=False):
            groups[name] |= {"people_before": people[0], "people_after": people[1]}
        content = facts | {
            "set": shards.name,
            "folder": str(shards.folder),
            "manifest_sha256": shards.digest,
            "by": list(by),
            "groups": groups,
            "left_out": part.left_out,
            "unknown": part.unknown,
        }
        write_json(draft / "balance.json", content)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
