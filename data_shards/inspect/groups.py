"""Groups of a packed set: which of its labels split it, into which groups, and their crosses.

Evaluations by group, audits and balanced subsets share it, so that a band of ages is the same everywhere.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field

MOST = 20  # groups of a label of plain numbers
BANDS = (0, 3, 10, 20, 30, 40, 50, 60, 70)  # first years of the bands of `age`, as FairFace has them


@dataclass(frozen=True)
class Group:
    """A label that splits a set: names of its groups, and the group of each sample [n] (-1 = unknown)."""

    names: tuple[str, ...]
    codes: np.ndarray


def group_of(name: str, kind: Field, values: np.ndarray) -> Group | None:
    """Split by one label [n] of that name and field; None where its values make no groups.

    A class splits by its names (at most MOST), `age` by BANDS, other whole numbers by themselves (at most
    MOST of them).
    """
    if values.ndim > 1 or kind.kind not in ("class", "value"):
        return None
    known = np.ones(len(values), bool) if kind.unknown is None else values != kind.unknown
    if kind.kind == "class":
        return Group(tuple(kind.names), np.where(known, values, -1)) if 1 < len(kind.names) <= MOST else None
    if name == "age":
        ends = [f"{low}-{high - 1}" for low, high in itertools.pairwise(BANDS)]
        bands = (*ends, f"{BANDS[-1]}+")
        known &= values >= 0
        return Group(bands, np.where(known, np.searchsorted(BANDS, values, "right") - 1, -1))
    found = np.unique(values[known])
    if values.dtype.kind not in "iu" or not 1 < len(found) <= MOST:
        return None
    codes = np.searchsorted(found, values)
    return Group(tuple(f"{value:d}" for value in found), np.where(known, codes, -1))


def named_group(shards: Any, name: str, *, key: str) -> Group:
    """Split an opened set by a label, or by one bit of a label of bits, as `attributes.Male`.

    key: the config key that asks, for the UserError where there is no such label, or it makes no groups.
    """
    field, _, bit = name.partition(".")
    columns = {each: kind for each, kind in shards.schema.columns.items() if each != "identity"}
    if field not in columns:
        raise UserError(
            f"{key}={name}: {shards.folder} has no such label, only {', '.join(columns) or 'none'}"
        )
    kind, values = columns[field], np.asarray(shards.labels[field])
    if kind.kind == "bits" and len(kind.shape) == 1:
        names = kind.names or tuple(map(str, range(kind.shape[0])))
        if bit not in names:
            raise UserError(
                f"{key}={name}: `{field}` holds several bits: type one of them, as {key}={field}.{names[0]}"
            )
        column = values[:, names.index(bit)]
        return Group((f"not {bit}", bit), np.where(column == kind.unknown, -1, column).astype(np.int64))
    group = None if bit else group_of(field, kind, values)
    if group is None:
        raise UserError(
            f"{key}={name}: its values make no groups (a class, a bit, or at most {MOST} whole numbers): "
            "leave it out"
        )
    return group


def crossed(groups: Sequence[Group]) -> Group:
    """Split by all of them at once: `woman, 20-29`; unknown where one is. Only crosses that occur."""
    shape = tuple(len(group.names) for group in groups)
    codes = np.stack([np.asarray(group.codes, np.int64) for group in groups])
    known = (codes >= 0).all(axis=0)
    flat = np.ravel_multi_index(tuple(np.where(known, codes, 0)), shape)
    occur = np.unique(flat[known])
    names = []
    for code in occur.tolist():
        parts = np.unravel_index(code, shape)
        names.append(", ".join(group.names[int(part)] for group, part in zip(groups, parts, strict=True)))
    return Group(tuple(names), np.where(known, np.searchsorted(occur, flat), -1))
