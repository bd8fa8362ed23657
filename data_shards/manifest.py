"""manifest.json of a packed set: what the set is and what every file of it must be. Written last.

A folder without it is not a set, whatever else lies there. The file carries its own hash, so a changed byte
in it is found as surely as one in a shard.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from data_shards.errors import UserError

SCHEMA = 1
NAME = "manifest.json"
TEMPORARY = ".tmp-"  # a file whose name starts so is not finished


def _own_hash(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Commits the set in `folder`: adds schema and hash, then writes manifest.json durably."""
    manifest = {"schema": SCHEMA, **manifest}
    manifest["sha256"] = _own_hash(manifest)
    with durable(folder / NAME) as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode())


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """(manifest, sha256 of the file). Raises UserError for a folder that is no whole set of this schema."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        remedy = "give the folder of a packed set, or let `rostro pack` finish it by the same command"
        if folder.is_dir() and (folder / "train" / NAME).exists():
            remedy = f"give one of its sets: {folder / 'train'}"
        raise UserError(f"{folder}: has no {NAME}; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the folder of a packed set") from None
    try:
        manifest = json.loads(data)
        found = manifest.get("schema")
    except (ValueError, AttributeError):
        raise UserError(f"{path}: is damaged (no JSON); pack the set again") from None
    if found != SCHEMA:
        raise UserError(f"{path}: schema={found}, this program reads {SCHEMA}; pack the set again")
    if manifest.get("sha256") != _own_hash(manifest):
        raise UserError(f"{path}: was changed after packing (its sha256 differs); pack the set again")
    return manifest, hashlib.sha256(data).hexdigest()


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write, of which a crash leaves all or nothing; there for good when the block ends."""
    with renamed(path) as file:
        yield file
    sync_path(path.parent)


@contextmanager
def renamed(path: Path) -> Iterator[BinaryIO]:
    """The same by temporary name, fsync and rename, for many files whose folder is synced once at the end."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_path(path: Path) -> None:
    """Makes what was written to a closed file (or renamed in a folder) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_entry(path: Path, *, name: str) -> dict[str, Any]:
    """What the manifest says of a file: {name, bytes, sha256}."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "bytes": os.path.getsize(path), "sha256": digest}
