"""Images that show the same picture and have different labels."""

from collections.abc import Iterator, Sequence

import numpy as np

from data_shards.inspect.duplicates import Cluster
from data_shards.inspect.findings import Finding, Sets, labels_of, shown_label
from data_shards.shard_format.people import normalised
from data_shards.shard_format.shard_set import ShardSet

TOLERANCE = 0.05  # of the range of a label of numbers
_SHOWN = 4  # values or bits that a note names


def find_contradictions(sets: Sets, clusters: Sequence[Cluster], *, tolerance: float) -> Iterator[Finding]:
    """Yield a finding for each cluster and label whose members do not agree.

    Classes and bits contradict where two known ones differ; numbers where they differ by more than
    `tolerance` of the label's range in all sets; persons where their names differ, in sets in which people
    have several images. What a set does not state contradicts nothing.
    """
    ranges = _ranges(sets)
    names = [shards.identity_names() if _keeps_people(shards) else None for shards in sets.sets]
    for cluster in clusters:
        for label in dict.fromkeys(name for shards in sets.sets for name in labels_of(shards)):
            note = _difference(sets, cluster.members, label, tolerance * ranges.get(label, 0.0))
            if note:
                yield Finding("contradiction", cluster.members, f"{label}: {note}", cluster.correlation)
        people = {_person(sets, names, number) for number in cluster.members} - {""}
        if len({normalised(name) for name in people}) > 1:
            note = f"identity: {_listed(sorted(people))}"
            yield Finding("contradiction", cluster.members, note, cluster.correlation)


def _keeps_people(shards: ShardSet) -> bool:
    start = np.asarray(shards.identity_start).astype(np.int64)
    return len(start) - 1 < int(start[-1])


def _person(sets: Sets, names: Sequence[list[str] | None], number: int) -> str:
    """The name of the person of an image; empty where it is not known."""
    shards, row = sets.place(number)
    known = names[sets.set_of(number)]
    identity = int(shards.labels["identity"][row])
    return known[identity] if known is not None and identity >= 0 else ""


def _ranges(sets: Sets) -> dict[str, float]:
    """{label of numbers: largest less smallest of all known ones}."""
    found: dict[str, list[float]] = {}
    for shards in sets.sets:
        for name in labels_of(shards):
            field = shards.schema.columns[name]
            values = np.asarray(shards.labels[name])
            known = values if field.unknown is None else values[values != field.unknown]
            if field.kind == "value" and known.size:
                found.setdefault(name, []).extend((float(known.min()), float(known.max())))
    return {name: max(ends) - min(ends) for name, ends in found.items()}


def _difference(sets: Sets, members: Sequence[int], label: str, most: float) -> str:
    """How the labels of these images differ, in words ("" = they agree)."""
    places = [sets.place(number) for number in members]
    places = [(shards, row) for shards, row in places if label in labels_of(shards)]
    shown = [shown_label(shards, label, row) for shards, row in places]
    kinds = {shards.schema.columns[label].kind for shards, _ in places}
    if kinds == {"bits"}:
        return _bits(places, label)
    known = [value for value in shown if value is not None]
    numbers = [value for value in known if isinstance(value, int | float)]
    if kinds == {"value"} and len(numbers) == len(known):
        apart = bool(numbers) and max(numbers) - min(numbers) > most
        return f"{min(numbers):g} / {max(numbers):g}" if apart else ""
    words = sorted({str(value) for value in known})
    return _listed(words) if len(words) > 1 else ""


def _bits(places: Sequence[tuple[ShardSet, int]], label: str) -> str:
    """The bits of which two known ones differ."""
    stated: dict[str, set[int]] = {}
    for shards, row in places:
        field = shards.schema.columns[label]
        bits = np.asarray(shards.labels[label][row]).ravel().tolist()
        names = field.names or tuple(map(str, range(len(bits))))
        for name, bit in zip(names, bits, strict=True):
            if bit in (0, 1):
                stated.setdefault(name, set()).add(bit)
    return _listed([name for name, found in stated.items() if len(found) > 1])


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return " / ".join(words[:_SHOWN]) + more
