"""Exact shares of every class among the sets of a pack: `holdout.exact=true`.

Unlike the hash of `layout.split_identities`, a count depends on what else is there: a group may move to
another set when others come or go.
"""

import math
from collections.abc import Mapping, Sequence

from data_shards.errors import UserError
from data_shards.pack.layout import HELD_OUT, TRAINED, VALIDATION, Division, group_of, rank
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Schema
from data_shards.sources.base import Sample


def classes_of_groups(schema: Schema, identities: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """{group: its class}, the label that the source names as `cls`.

    Raises UserError where there is no such label, or samples of a group have several classes.
    """
    if schema.cls not in schema.labels:
        raise UserError("holdout.exact=true: the source states no class; leave it out or type source=classes")
    place = list(schema.labels).index(schema.cls)
    classes: dict[str, float] = {}
    for members in identities.values():
        for sample in members:
            if classes.setdefault(group_of(sample), sample.labels[place]) != sample.labels[place]:
                raise UserError(
                    f"holdout.exact=true: {visible(group_of(sample))!r}, which must not be divided, has "
                    f"samples of several classes ({visible(sample.path)}); leave it out"
                )
    return classes


def refuse_one_sided(
    schema: Schema,
    splits: Sequence[tuple[str, Mapping[str, Sequence[Sample]]]],
    *,
    holdout: float,
    val: float,
) -> None:
    """Raise UserError where the shares leave a set with one class of two, of which the source has both.

    Of a label with more classes a set may lack a rare one.
    """
    field = schema.labels.get(schema.cls or "")
    if field is None or len(field.names) != 2 or not holdout + val:
        return
    place = list(schema.labels).index(str(schema.cls))
    classes = {
        split: {int(sample.labels[place]) for members in people.values() for sample in members} - {-1}
        for split, people in splits
        if split in (TRAINED, VALIDATION, HELD_OUT)
    }
    for split, found in classes.items():
        if len(found) < len(set().union(*classes.values())):
            lacking = next(name for number, name in enumerate(field.names) if number not in found)
            raise UserError(
                f"holdout={holdout:g} val={val:g}: no {visible(lacking)} falls into {split}, by a hash of "
                "each name alone; add holdout.exact=true, or type another seed= or larger shares"
            )


def divide_exactly(classes: Mapping[str, float], *, holdout: float, val: float, seed: int) -> Division:
    """[(split, its groups)]: of n groups of a class, the nearest whole number to each share of n.

    Those with the lowest hashes are held out, those with the highest validate. Raises UserError for a split
    that is empty.
    """
    strata: dict[float, list[str]] = {}
    for name in sorted(classes, key=lambda name: rank(name, seed, "holdout")):
        strata.setdefault(classes[name], []).append(name)
    parts: dict[str, list[str]] = {TRAINED: [], VALIDATION: [], HELD_OUT: []}
    for names in strata.values():
        held_out = math.floor(holdout * len(names) + 0.5)
        rest = max(held_out, len(names) - math.floor(val * len(names) + 0.5))
        parts[HELD_OUT] += names[:held_out]
        parts[TRAINED] += names[held_out:rest]
        parts[VALIDATION] += names[rest:]
    stated = {TRAINED: True, VALIDATION: val > 0, HELD_OUT: holdout > 0}
    if empty := [part for part, asked in stated.items() if asked and not parts[part]]:
        raise UserError(
            f"holdout={holdout:g} val={val:g}: {empty[0]} is empty, no class has enough samples for these "
            "shares; type others"
        )
    return [(part, names) for part, names in parts.items() if stated[part]]
