"""The people of a run's sets as hashes of names and images, kept in the run and compared with other sets.

A person is known by name, or by an image that is the same byte for byte (its CRC and size stand in the
index; an image that was encoded anew is not recognised). Names are compared without regard to case, accents'
composition, spaces and underscores. One that holds a digit (`s1`, `n000123`) counts within one data set only:
another set numbers other people. Imports no torch.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_bytes, read_json, write_bytes, write_json
from data_shards.shard_format.people import hashes, numbered, one_set
from data_shards.shard_format.shard_set import ShardSet

TRAINED, CHOSEN, BEGAN = (
    "trained_on",
    "chosen_on",
    "began_with",
)  # files of a run: .json says what they are, .bin holds the hashes
SCHEMA = {"set": str, "source": str, "names": int, "pictures": int, "sha256": str}
MOST_IMAGES = 10_000_000  # of a larger set only the names are kept


@dataclass(frozen=True)
class People:
    """People of a set: sorted hashes (u8) of their names and images."""

    set: str
    source: str
    names: np.ndarray
    images: np.ndarray


def people_of(shards: ShardSet) -> People:
    """Hash all people of a set."""
    names = hashes(shards.identity_names())
    images = _images(shards, slice(None)) if len(shards) <= MOST_IMAGES else np.zeros(0, "u8")
    return People(shards.name, shards.manifest["source"], np.unique(names), np.unique(images))


def joined(one: People, other: People) -> People:
    """Join the people of A and B: the second one's numbered people count as those of the first one's set."""
    names, images = (np.union1d(getattr(one, key), getattr(other, key)) for key in ("names", "images"))
    return People(one.set, one.source, names, images)


def write(run: Path, people: People, *, role: str = TRAINED) -> None:
    """Write the hashes into a run directory: 8 bytes a person and an image."""
    data = np.concatenate([people.names, people.images]).astype("<u8").tobytes()
    facts = {"set": people.set, "source": people.source, "names": len(people.names)}
    facts |= {"pictures": len(people.images), "sha256": hashlib.sha256(data).hexdigest()}
    write_bytes(run / f"{role}.bin", data)
    write_json(run / f"{role}.json", facts)


def read(run: Path, folder: str, *, role: str = TRAINED) -> People | None:
    """Read the people of that role in the run, or, for a run of an earlier version, from its set in `folder`.

    None where neither the run nor a set says it.
    """
    remedy = f"delete it, and it is read from {folder} again"
    facts_file, hashes_file = run / f"{role}.json", run / f"{role}.bin"
    try:
        facts = read_json(facts_file, SCHEMA, remedy=remedy)
        names, images = facts["names"], facts["pictures"]
        data = read_bytes(hashes_file, limit=8 * (MOST_IMAGES + (1 << 27)), remedy=remedy)
    except MissingFile:
        here = "://" not in folder and (Path(folder) / "manifest.json").is_file()
        return people_of(ShardSet.open(folder, fields=("identity",))) if here else None
    if hashlib.sha256(data).hexdigest() != facts["sha256"] or len(data) != 8 * (names + images):
        raise FileError(f"{hashes_file} is damaged: delete {facts_file}, and it is made anew from {folder}")
    table = np.frombuffer(data, "<u8")
    return People(facts["set"], facts["source"], table[:names], table[names:])


def of_training(run: Path, folder: str) -> list[People]:
    """Return the people whom the weights of a run have seen: of its own set, and of runs it began with."""
    known = [read(run, folder)]
    if (run / f"{BEGAN}.json").is_file():
        known.append(read(run, "", role=BEGAN))
    return [people for people in known if people is not None]


def shared_with_any(known: list[People], shards: ShardSet, rows: np.ndarray | None = None) -> list[str]:
    """List what `shared` does for each of the known people, without repetition."""
    return sorted({name for people in known for name in shared(people, shards, rows)})


def shared(known: People, shards: ShardSet, rows: np.ndarray | None = None) -> list[str]:
    """List the names of the people of these rows (None = all) who are among the known ones, sorted."""
    ids = np.arange(len(shards)) if rows is None else np.asarray(rows)
    identity = np.asarray(shards.labels["identity"])[ids]
    present = np.unique(identity[identity >= 0])  # two unknown people are never known to be one
    names = shards.identity_names()
    shown = [names[number] for number in present]
    same_numbers = one_set(known.set, known.source, shards.name, shards.manifest["source"])
    comparable = np.array([same_numbers or not numbered(name) for name in shown], bool)
    same = np.isin(hashes(shown), known.names) & comparable
    found = set(present[same].tolist())
    if len(known.images):
        hit = np.isin(_images(shards, slice(None) if rows is None else rows), known.images)
        if hit.sum() > len(hit) * len(known.images) / 2**40:  # a few may be chance where sets are huge
            found |= set(np.unique(identity[hit & (identity >= 0)]).tolist())
            return sorted(
                [*(names[number] for number in found), *_unnamed(shards, ids[hit & (identity < 0)])]
            )
    return sorted(names[number] for number in found)


def refuse_shared(sets: dict[str, ShardSet]) -> None:
    """Refuse sets of a run that share people: the figures would say nothing about new ones."""
    parts = [part for part in ("train", "train_b", "val", "eval") if part in sets]
    for place, part in enumerate(parts[:-1]):
        known = people_of(sets[part])
        for other in parts[place + 1 :]:
            if other == "train_b":  # A and B are both trained on
                continue
            if both := shared(known, sets[other]):
                raise UserError(
                    f"data.{other}={sets[other].folder} holds {len(both)} people of data.{part}, such as "
                    f"{both[0]}: "
                    "their figures say nothing of new people; pack with holdout=0.1 val=0.1, or type "
                    "data.allow_shared=true"
                )


def _unnamed(shards: ShardSet, ids: np.ndarray) -> list[str]:
    """Name the images of unknown people by their members."""
    return [f"an unknown one ({shards.member(row)})" for row in ids.tolist()]


def _images(shards: ShardSet, rows: slice | np.ndarray) -> np.ndarray:
    return (np.asarray(shards.crc)[rows].astype("u8") << np.uint64(32)) | np.asarray(shards.size)[rows]
