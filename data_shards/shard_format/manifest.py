"""manifest.json of a packed set: what the set is and what each of its files must be. It is written last.

A folder without it is not a set, whatever else it contains. The file carries its own hash, so a changed byte
in it is noticed as surely as one in a shard. What the index and the shards contain: `shard_set.py`.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import MissingFile, conform, durable, parse_json, read_bytes
from data_shards.shard_format.schema import (
    IDENTITY,
    PERHAPS_IDENTITY,
    PIECE_COLUMNS,
    PLAIN,
    SHAPE,
    Field,
    Schema,
)

SCHEMA = 2  # the newest version that this program reads and writes; see `schema.py`
NAME = "manifest.json"
FOLDER = ".pack"  # the journal of a set that is being packed
TWINS = "twins"  # its folder of low-resolution copies, see `twins.py`
LARGEST = 1 << 28  # bytes of a manifest; with 26,000 shards it has 9 million
REMEDY = "copy it again or pack the set again"

_FILE = {"name": str, "bytes": int, "sha256": str}
_SHARD = {**_FILE, "samples": int}
_SHAPE = {
    "schema": int,
    "name": str,
    "source": str,
    "split": str,
    "cls?": (str, None),
    "source_split?": str,
    "licence": str,
    "request": str,
    "size": int,
    "seed": int,
    "holdout": float,
    "verify": str,
    "options?": {str: object},
    "samples": int,
    "identities": int,
    "unknown?": int,
    "rejected": int,
    "picture_bytes": int,
    "converted": {str: int},
    "mended?": {str: int},
    "shards": [_SHARD],
    "files": [_FILE],
    "twins?": [{"size": range(1, 1 << 16), "samples": int, "shards": [_SHARD], "files": [_FILE]}],
}
_FIELDS = {1: {str: {"dtype": str, "largest": float}}, 2: {str: SHAPE}}
_NAME = re.compile(r"(?:index/)?[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # of a file: never outside the folder
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEEDED = ("shard", "offset", "size", "width", "height", "crc", "identity_start", "shard_start")


def _own_hash(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _rendered(manifest: dict[str, Any]) -> bytes:
    """The bytes of the file: the manifest with its hash, and schema 1 if it states none."""
    manifest = {"schema": 1, **manifest}
    manifest["sha256"] = _own_hash(manifest)
    return (json.dumps(manifest, indent=1) + "\n").encode()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Commit the set in `folder`: add its hash and, if missing, schema 1; write manifest.json durably."""
    with durable(folder / NAME) as file:
        file.write(_rendered(manifest))


def all_files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of all files of a set, those of its twins too."""
    parts = [manifest, *manifest.get("twins", ())]
    return [entry for part in parts for entry in (*part["shards"], *part["files"])]


def digest_without_twins(manifest: dict[str, Any]) -> str:
    """The sha256 of the file as it is without twins: they may come later, and the set is the same."""
    own = {key: value for key, value in manifest.items() if key not in ("twins", "sha256")}
    return hashlib.sha256(_rendered(own)).hexdigest()


def twins_digest(manifest: dict[str, Any], sides: Sequence[int]) -> str:
    """A sha256 that changes with any byte of these twins of a set."""
    twins = [twin for twin in manifest.get("twins", ()) if twin["size"] in sides]
    return hashlib.sha256(json.dumps(twins, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """(manifest, sha256 of the file without twins). UserError unless the folder is a whole set."""
    path = folder / NAME
    try:
        data = read_bytes(path, limit=LARGEST, remedy="give the folder of a packed set")
    except MissingFile:
        remedy = "give the folder of a packed set, or let `rostro pack` finish it by the same command"
        if folder.is_dir() and (folder / "train" / NAME).exists():
            remedy = f"give one of its sets: {folder / 'train'}"
        raise UserError(f"{folder}: has no {NAME}; {remedy}") from None
    manifest = parse_json(data, what=str(path), remedy=REMEDY)
    number = manifest.get("schema")
    if type(number) is not int or number not in _FIELDS:
        newer = "update Rostro, or " if type(number) is int and number > SCHEMA else ""
        raise UserError(
            f"{path}: schema={number!r:.40}, this program reads 1 to {SCHEMA}; {newer}pack the set again"
        )
    try:
        same = manifest.get("sha256") == _own_hash(manifest)
    except RecursionError:
        same = False
    if not same:
        raise UserError(f"{path}: was changed after packing (its sha256 differs); {REMEDY}")
    if fault := conform(manifest, _SHAPE | {"fields": _FIELDS[number]}) or _fault(manifest):
        raise UserError(f"{path}: {fault}: {REMEDY}")
    if "twins" in manifest:
        return manifest, digest_without_twins(manifest)
    return manifest, hashlib.sha256(data).hexdigest()


def schema_of(manifest: dict[str, Any]) -> Schema:
    """The labels of a set. Those of schema 1 are an identity and plain values."""
    fields = {name: entry for name, entry in manifest["fields"].items() if name != "identity"}
    if manifest["schema"] == 1:
        return Schema({name: Field("value", entry["dtype"]) for name, entry in fields.items()})
    labels = {name: Field.from_json(entry) for name, entry in fields.items()}
    return Schema(labels, manifest.get("cls"), manifest["fields"]["identity"] == IDENTITY.to_json())


def check_fields(folder: Path, manifest: dict[str, Any], fields: Sequence[str]) -> None:
    """Raise UserError unless the set has each of `fields`: `age`, or `age:value` for one of that kind."""
    schema = schema_of(manifest)
    kinds = {"identity": schema.identity.kind} | {name: each.kind for name, each in schema.fields.items()}
    for field in fields:
        name, _, kind = field.partition(":")
        if name not in kinds:
            known = ", ".join(kinds)
            raise UserError(f"{folder}: has no label `{name}`, only {known}; pack a source that has it")
        if kind and kind != kinds[name]:
            raise UserError(
                f"{folder}: the label `{name}` is of the kind {kinds[name]}, not {kind}; pack a source whose "
                f"`{name}` is of the kind {kind}"
            )


def _fault_of_fields(manifest: dict[str, Any]) -> str:
    fields = manifest["fields"]
    if manifest["schema"] == 1:
        if any(entry["dtype"] not in PLAIN for entry in fields.values()):
            return f"fields: the only types are {' and '.join(PLAIN)}"
        if fields.get("identity") != {"dtype": "i4", "largest": manifest["identities"] - 1}:
            return f"fields.identity does not fit identities={manifest['identities']}"
        return ""
    if fields.get("identity") not in (IDENTITY.to_json(), PERHAPS_IDENTITY.to_json()):
        return "fields.identity is not that of a set"
    schema = schema_of(manifest)
    unstated = [name for name in schema.ragged if "rows" not in fields[name]]
    return f"it has no fields.{unstated[0]}.rows" if unstated else schema.fault()


def _fault(manifest: dict[str, Any]) -> str:
    """What is contradictory in a manifest of the right shape ("" = nothing)."""
    shards, entries = manifest["shards"], all_files(manifest)
    for part in (manifest, *manifest.get("twins", ())):
        folder = f"{TWINS}/{part['size']}/" if part is not manifest else ""
        for entry in (*part["shards"], *part["files"]):
            plain = entry["name"].startswith(folder) and _NAME.fullmatch(entry["name"].removeprefix(folder))
            if not plain or not _SHA256.fullmatch(entry["sha256"]) or entry["bytes"] < 0:
                return f"{entry['name']!r:.60} has no plain name, size and sha256"
    names = {entry["name"] for entry in entries}
    if len(names) != len(entries):
        return "it names a file twice"
    if fault := _fault_of_fields(manifest):
        return fault
    tables = [*_NEEDED, *schema_of(manifest).tables]
    for name in (*(f"index/{table}.npy" for table in tables), "identities.txt", "rejected.csv"):
        if name not in names:
            return f"it does not list {name!r:.60}"
    fewest = 1 if schema_of(manifest).knows_people else 0
    if min((shard["samples"] for shard in shards), default=0) < 1 or manifest["identities"] < fewest:
        return "it has a shard without samples, or no identities"
    if sum(shard["samples"] for shard in shards) != manifest["samples"]:
        return f"samples={manifest['samples']} is not the sum of its shards"
    faults = (_fault_of_twin(twin, len(shards), names) for twin in manifest.get("twins", ()))
    return next(filter(None, faults), "")


def _fault_of_twin(twin: dict[str, Any], num_shards: int, names: set[str]) -> str:
    what = f"twin {twin['size']}"
    tables = [*(f"{column}.npy" for column in PIECE_COLUMNS), "blocks.sha256"]
    needed = [f"{TWINS}/{twin['size']}/index/{name}" for name in tables]
    if missing := next((name for name in needed if name not in names), ""):
        return f"it does not list {missing!r:.60}"
    if len(twin["shards"]) != num_shards:
        return f"{what} has {len(twin['shards'])} shards, the set {num_shards}"
    if sum(shard["samples"] for shard in twin["shards"]) != twin["samples"]:
        return f"{what}: samples={twin['samples']} is not the sum of its shards"
    return ""
