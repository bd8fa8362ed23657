"""Problems that a check finds in a packed set, and what finds them in any of its files."""

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_shards.files import FileError, MissingFile, open_regular, read_text
from data_shards.shard_format.keys import visible

MANY = 20  # problems of one shard that are listed; the others are counted


class Problem(NamedTuple):
    """One thing that is wrong. file and member are "" where the problem is not in one."""

    file: str
    member: str
    reason: str

    def __str__(self) -> str:
        return visible(": ".join(part for part in self if part))


def limited(problems: Sequence[Problem]) -> list[Problem]:
    """The first MANY problems of one shard, and how many more there are."""
    if len(problems) <= MANY:
        return list(problems)
    return [*problems[:MANY], Problem(problems[0].file, "", f"and {len(problems) - MANY} more problems")]


def check_file(folder: Path, entry: dict[str, Any]) -> list[Problem]:
    """What is wrong with one file of the set, by its entry in the manifest."""
    try:
        with open_regular(folder / entry["name"]) as file:
            size = os.fstat(file.fileno()).st_size
            same = (
                size == entry["bytes"] and hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
            )
    except MissingFile:
        return [Problem(entry["name"], "", os.strerror(errno.ENOENT))]
    except FileError:
        return [Problem(entry["name"], "", "is not a regular file, or cannot be read")]
    except OSError as error:
        return [Problem(entry["name"], "", error.strerror or str(error))]
    if size != entry["bytes"]:
        return [Problem(entry["name"], "", f"{size} bytes, the manifest says {entry['bytes']}")]
    return [] if same else [Problem(entry["name"], "", "sha256 differs from the manifest's")]


def index_names(folder: Path, manifest: dict[str, Any], number: int) -> list[str]:
    """The keys in the DALI index. [] = it is damaged, which is reported as a file; the tar has the names."""
    name = f"{Path(manifest['shards'][number]['name']).stem}.idx"
    entry = next((entry for entry in manifest["files"] if entry["name"] == name), None)
    if entry is None or check_file(folder, entry):
        return []
    try:
        lines = read_text(folder / name, limit=entry["bytes"]).splitlines()[1:]
        return [line.split(" ")[3].removesuffix(".jpg") for line in lines]
    except (FileError, IndexError):
        return []
