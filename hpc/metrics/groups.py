"""Groups of people: which labels split a set, alone and by two (women of 30 to 39), and whom samples show.

Figures by group, and how far they differ: `gaps.py`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.inspect.groups import MOST, Group, group_of

PEOPLE = ("race", "gender", "age", "skin")  # labels that split a set by two where none are named
CROSSED = 120  # groups of two labels together
AND = " x "  # between the names of two labels, and of their groups


@dataclass(frozen=True)
class Groups:
    """The labels that split a set, and whom each of its samples shows (None = each somebody else).

    together: the labels that also split it by two (None = all of them).
    """

    columns: Mapping[str, Group] = field(default_factory=dict)
    units: np.ndarray | None = None
    together: Sequence[str] | None = None

    def units_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the unit of each sample that is drawn as a whole, [n]."""
        return np.arange(len(ids)) if self.units is None else np.asarray(self.units)[ids]

    def crossed(self) -> "Groups":
        """Add each pair of the labels `together` as one: `race x gender` has groups of a race and a gender.

        Left out is a pair of more than CROSSED groups.
        """
        columns = dict(self.columns)
        kept = [each for each in self.columns.items() if self.together is None or each[0] in self.together]
        for (one, a), (other, b) in itertools.combinations(kept, 2):
            if len(a.names) * len(b.names) <= CROSSED:
                names = tuple(f"{left}{AND}{right}" for left in a.names for right in b.names)
                known = (a.codes >= 0) & (b.codes >= 0)
                codes = np.where(known, np.asarray(a.codes, np.int64) * len(b.names) + b.codes, -1)
                columns[f"{one}{AND}{other}"] = Group(names, codes)
        return Groups(columns, self.units, self.together)


def groups_of(shards: Any, wanted: Sequence[str] = ()) -> Groups:
    """Find the labels of a packed set that split it; `wanted` names them (empty = all classes, and age).

    A bit of a label of bits may be named too, such as `Male`. Those that are named also split it by two, or
    else those of PEOPLE.

    Raises UserError for a label that the set lacks, or that makes no groups.
    """
    fields = {name: each for name, each in shards.schema.columns.items() if name != "identity"}
    bits = {bit: (each, place) for each, kind in fields.items() for place, bit in enumerate(_bits(kind))}
    for name in wanted:
        if name not in fields and name not in bits:
            known = ", ".join(fields) or "no label"
            raise UserError(f"groups={name}: {shards.folder} has no such label, only {known}")
    columns = {}
    for name in wanted or fields:
        if name in fields:
            group = group_of(name, fields[name], np.asarray(shards.labels[name]))
        else:
            column = np.asarray(shards.labels[bits[name][0]])[:, bits[name][1]]
            group = Group(("no", "yes"), np.where((column == 0) | (column == 1), column, -1))
        if wanted and group is not None and not (group.codes >= 0).any():
            raise UserError(
                f"groups={name}: none of the {len(shards):,} samples of {shards.folder} has a known {name}: "
                "leave it out"
            )
        if group is not None:
            columns[name] = group
        elif wanted:
            raise UserError(
                f"groups={name}: its values make no groups (a class, or at most {MOST} whole numbers): "
                "leave it out"
            )
    people = len(shards.identity_start) - 1
    units = _units(np.asarray(shards.labels["identity"])) if people < len(shards) else None
    return Groups(columns, units, tuple(wanted) or PEOPLE)


def _bits(kind: Any) -> Sequence[str]:
    return tuple(kind.names) if kind.kind == "bits" else ()


def _units(identity: np.ndarray) -> np.ndarray:
    """Return the unit of each sample: its person; each image of an unknown one (-1) is its own."""
    return np.where(identity < 0, -1 - np.arange(len(identity)), identity)
