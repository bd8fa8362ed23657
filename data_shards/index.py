"""ShardSet: the read side of a packed set. Memory-mapped tables, a row a sample, ordered by (shard, offset).

Opening costs one stat a file, whatever the number of samples: sizes are compared, bytes are not (that is
`rostro check`). Row numbers are the ids of samples everywhere.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.manifest import read_manifest
from data_shards.tar_writer import BLOCK, header_name

# The picture's bytes lie at [offset, offset + size) of the shard; crc is zlib.crc32 of them.
COLUMNS = {"shard": "u4", "offset": "u8", "size": "u4", "width": "u2", "height": "u2", "crc": "u4"}
STARTS = ("identity_start", "shard_start")


class ShardSet:
    """A packed set, opened. Arrays are read-only maps of files: a process touches only what it reads."""

    shard: np.ndarray  # [n] u4
    offset: np.ndarray  # [n] u8
    size: np.ndarray  # [n] u4
    width: np.ndarray  # [n] u2, of the stored picture
    height: np.ndarray  # [n] u2
    crc: np.ndarray  # [n] u4
    identity_start: np.ndarray  # [identities + 1] u8: identity i owns rows [start[i], start[i + 1])
    shard_start: np.ndarray  # [shards + 1] u8

    def __init__(self, folder: Path, manifest: dict[str, Any], digest: str) -> None:
        self.folder, self.manifest, self.digest = folder, manifest, digest
        self.name: str = manifest["name"]
        for column in (*COLUMNS, *STARTS):
            setattr(self, column, _load(folder, column))
        self.labels: dict[str, np.ndarray] = {
            field: _load(folder, f"labels.{field}") for field in manifest["fields"]
        }

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, fields: Sequence[str] = ()) -> "ShardSet":
        """Opens the set after comparing schema, files, sizes and row counts with the manifest.

        fields: labels that the caller needs. Raises UserError that names what differs and what to type.
        """
        folder = Path(folder)
        manifest, digest = read_manifest(folder)
        for field in fields:
            if field not in manifest["fields"]:
                known = ", ".join(manifest["fields"])
                raise UserError(f"{folder}: has no label `{field}`, only {known}; pack a source that has it")
        check_sizes(folder, manifest)
        shards = cls(folder, manifest, digest)
        shards._check_rows()
        return shards

    def _check_rows(self) -> None:
        samples = self.manifest["samples"]
        lengths = dict.fromkeys(COLUMNS, samples) | {
            "identity_start": self.manifest["identities"] + 1,
            "shard_start": len(self.manifest["shards"]) + 1,
        }
        tables = {name: getattr(self, name) for name in lengths}
        for field, table in self.labels.items():
            tables[f"labels.{field}"], lengths[f"labels.{field}"] = table, samples
        for name, table in tables.items():
            if table.ndim != 1 or len(table) != lengths[name]:
                raise UserError(
                    f"{self.folder}/index/{name}.npy: {len(table)} rows, the manifest says {lengths[name]}; "
                    "pack the set again"
                )
        if samples and (int(self.identity_start[-1]), int(self.shard_start[-1])) != (samples, samples):
            raise UserError(f"{self.folder}: index does not cover all {samples} samples; pack the set again")

    @cached_property
    def shards(self) -> list[Path]:
        return [self.folder / shard["name"] for shard in self.manifest["shards"]]

    def __len__(self) -> int:
        return len(self.shard)

    def __repr__(self) -> str:
        return f"ShardSet({self.name}: {len(self)} samples of {len(self.identity_start) - 1} identities)"

    def member(self, sample_id: int) -> str:
        """Name of a sample's picture in its shard, `<key>.jpg`, read from the tar."""
        path = self.shards[int(self.shard[sample_id])]
        try:
            with open(path, "rb") as file:
                file.seek(int(self.offset[sample_id]) - BLOCK)
                return header_name(file.read(BLOCK))
        except (OSError, ValueError) as error:
            return f"? ({error})"  # this name goes into messages about damage: it must not fail itself

    def key(self, sample_id: int) -> str:
        """`<shard file>:<member name>`: how messages name a sample."""
        return f"{self.shards[int(self.shard[sample_id])].name}:{self.member(sample_id)}"

    def identity_names(self) -> list[str]:
        """Name of every identity, by its number."""
        return (self.folder / "identities.txt").read_text(encoding="utf-8").split("\n")[:-1]


def check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    """Raises UserError for the first file that is missing or has another size than the manifest says."""
    for entry in (*manifest["shards"], *manifest["files"]):
        path = os.path.join(folder, entry["name"])
        try:
            found = os.stat(path).st_size
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; copy it again or pack the set again") from None
        if found != entry["bytes"]:
            raise UserError(
                f"{path}: {found} bytes, the manifest says {entry['bytes']}; "
                "copy it again or pack the set again"
            )


def _load(folder: Path, name: str) -> np.ndarray:
    path = folder / "index" / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        raise UserError(f"{path}: is missing or damaged; copy it again or pack the set again") from None
