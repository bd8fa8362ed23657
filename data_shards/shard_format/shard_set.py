"""ShardSet: a packed set, opened for reading. Its tables are memory-mapped, a row a sample, in tar order.

Opening compares the size of every file with the manifest, and the bytes of the index: all of a small set's;
of a large one's (over WHOLE bytes) the two tables of starts, and the rest when a row is first needed
(`verify`). The crc32 of an image is compared when it is read; `rostro check` reads everything. Row numbers
are the ids of samples everywhere. Read next: `columns.py`, `manifest.py`.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import read_bytes
from data_shards.shard_format.columns import (
    BLOCKS,
    REMEDY,
    Blocks,
    RaggedColumn,
    check_starts,
    load_column,
    verify_file,
)
from data_shards.shard_format.manifest import all_files, check_fields, read_manifest, schema_of
from data_shards.shard_format.schema import PIECE_COLUMNS
from data_shards.shard_format.ustar import BLOCK, header_name

# An image's bytes are at [offset, offset + size) of its shard; crc is the zlib.crc32 of them.
COLUMNS = {"shard": "u4", "offset": "u8", "size": "u4", "width": "u2", "height": "u2", "crc": "u4"}
STARTS = ("identity_start", "shard_start")
WHOLE = 128 << 20  # bytes of an index that is verified whole when it is opened
CHUNK = 1 << 20  # rows that are compared at a time


class ShardSet:
    """A packed set, opened. Its arrays are read-only maps of files: a process loads only what it reads."""

    shard: np.ndarray  # [n] u4
    offset: np.ndarray  # [n] u8
    size: np.ndarray  # [n] u4
    width: np.ndarray  # [n] u2, pixels of the stored image
    height: np.ndarray  # [n] u2
    crc: np.ndarray  # [n] u4
    # [identities + 1] u8: identity i owns rows [start[i], start[i + 1]); the rows after them are of people
    # whom the source does not know
    identity_start: np.ndarray
    shard_start: np.ndarray  # [shards + 1] u8

    def __init__(self, folder: Path, manifest: dict[str, Any], digest: str) -> None:
        self.folder, self.manifest, self.digest = folder, manifest, digest
        self.name: str = manifest["name"]
        self.unchecked = ""  # what an opened set could not verify, for the log
        self._blocks: Blocks | None = None
        self._compared = True  # whether the rows were compared with starts and shards
        self._files = {entry["name"]: entry for entry in manifest["files"]}
        for column, kind in COLUMNS.items():
            setattr(self, column, load_column(self._column(column), kind, manifest["samples"]))
        for column, count in zip(STARTS, (manifest["identities"], len(manifest["shards"])), strict=True):
            setattr(self, column, load_column(self._column(column), "u8", count + 1))
        self.schema = schema_of(manifest)
        self.labels: dict[str, np.ndarray] = {
            name: load_column(self._column(f"labels.{name}"), field.dtype, manifest["samples"], field.shape)
            for name, field in self.schema.columns.items()
        }
        self.ragged: dict[str, RaggedColumn] = {
            name: RaggedColumn(
                load_column(self._column(f"labels.{name}.start"), "u8", manifest["samples"] + 1),
                load_column(
                    self._column(f"labels.{name}.rows"),
                    field.dtype,
                    manifest["fields"][name]["rows"],
                    field.shape,
                ),
            )
            for name, field in self.schema.ragged.items()
        }
        self.pieces: dict[str, dict[str, np.ndarray]] = {  # {piece: {offset, size, width, height, crc: [n]}}
            name: {
                part: load_column(self._column(f"piece.{name}.{part}"), kind, manifest["samples"])
                for part, kind in PIECE_COLUMNS.items()
            }
            for name in self.schema.pieces
        }

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, fields: Sequence[str] = ()) -> "ShardSet":
        """Open the set after comparing schema, files, sizes and the index with the manifest.

        fields: labels that the caller needs, `age`, or `age:value` where they must be of that kind. Raises
            UserError, which names what differs and what to type.
        """
        folder = Path(folder)
        manifest, digest = read_manifest(folder)
        check_fields(folder, manifest, fields)
        check_sizes(folder, manifest)
        shards = cls(folder, manifest, digest)
        shards._verify_index()
        return shards

    def _column(self, name: str) -> Path:
        return self.folder / "index" / f"{name}.npy"

    def _verify_index(self) -> None:
        for name in STARTS:
            verify_file(self._column(name), self._files[f"index/{name}.npy"])
        self.check_starts()
        columns = self._all_columns()
        if sum(self._files[name]["bytes"] for name in columns) <= WHOLE:
            for name in columns:
                verify_file(self.folder / name, self._files[name])
            for ids in self._chunks():
                self.compare(ids)
        elif BLOCKS in self._files:
            self._blocks = Blocks(self.folder, columns, self._files[BLOCKS])
        else:
            self._compared = False
            self.unchecked = (
                f"{self.folder}: packed before indexes had block hashes: sizes, images and places of rows "
                "are verified as they are read, labels other than the identity by `rostro check` only"
            )

    def _columns(self) -> dict[str, np.ndarray]:
        """{file: column} of all columns with one row a sample."""
        columns = {f"index/{name}.npy": getattr(self, name) for name in COLUMNS}
        for piece, parts in self.pieces.items():
            columns |= {f"index/piece.{piece}.{part}.npy": column for part, column in parts.items()}
        return columns | {f"index/labels.{field}.npy": column for field, column in self.labels.items()}

    def _all_columns(self) -> dict[str, np.ndarray]:
        """{file: column} of all columns whose blocks are hashed: those, and both of each ragged label."""
        columns = self._columns()
        for name, ragged in self.ragged.items():
            columns[f"index/labels.{name}.start.npy"] = ragged.start
            columns[f"index/labels.{name}.rows.npy"] = ragged.rows
        return columns

    def verify(self, ids: np.ndarray) -> None:
        """Raise UserError if the index of these rows is not what was packed. Call it before they are used."""
        if self._blocks is not None:
            for name in self._columns():
                self._blocks.verify(name, ids, ids + 1)
            for name in self.ragged:
                self._blocks.verify(f"index/labels.{name}.start.npy", ids, ids + 2)
                self._blocks.verify(f"index/labels.{name}.rows.npy", *self._spans(name, ids))
        elif not self._compared:
            self.compare(np.unique(ids))

    def _spans(self, name: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a ragged label that these samples own. Raises UserError unless they can be that."""
        ragged = self.ragged[name]
        first, stop = ragged.spans(ids)
        if (first > stop).any() or (first < 0).any() or (stop > len(ragged.rows)).any():
            row = int(ids[np.argmax((first > stop) | (first < 0) | (stop > len(ragged.rows)))])
            raise UserError(f"{self._column(f'labels.{name}.start')}: row {row} cannot be: {REMEDY}")
        return first, stop

    def check_starts(self) -> None:
        """Raise UserError unless all tables of starts divide their rows, into shards as the manifest says."""
        for name, ragged in self.ragged.items():
            if (int(ragged.start[0]), int(ragged.start[-1])) != (0, len(ragged.rows)):
                path = self._column(f"labels.{name}.start")
                raise UserError(f"{path}: does not rise from 0 to its {len(ragged.rows)} rows: {REMEDY}")
        last = len(self) if self.schema.knows_people else min(int(self.identity_start[-1]), len(self))
        for name, rows in zip(STARTS, (last, len(self)), strict=True):
            check_starts(self._column(name), getattr(self, name), rows)
        counts = [entry["samples"] for entry in self.manifest["shards"]]
        if not np.array_equal(np.diff(self.shard_start.astype("i8")), counts):
            raise UserError(f"{self._column('shard_start')}: does not fit the manifest's shards: {REMEDY}")

    def compare_all(self) -> None:
        """Raise UserError unless all rows fit starts, shards and, if the set has them, hashes of blocks."""
        if BLOCKS in self._files:
            self._blocks = Blocks(self.folder, self._all_columns(), self._files[BLOCKS])
        for ids in self._chunks():
            self.verify(ids)
            self.compare(ids)

    def _chunks(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self), CHUNK):
            yield np.arange(first, min(first + CHUNK, len(self)))

    def compare(self, ids: np.ndarray) -> None:
        """Raise UserError unless these rows are in the shard and of the identity that the starts say."""
        shard = np.searchsorted(self.shard_start, ids.astype("u8"), "right") - 1
        person = np.searchsorted(self.identity_start, ids.astype("u8"), "right") - 1
        person = np.where(ids < int(self.identity_start[-1]), person, -1)
        offset, size = self.offset[ids], self.size[ids]
        end = self._shard_bytes[shard]
        for name, good in (
            ("shard", self.shard[ids] == shard),
            ("labels.identity", self.labels["identity"][ids] == person),
            ("offset", (offset >= BLOCK) & (offset <= end)),
            ("size", (size > 0) & (size <= end - np.minimum(offset, end))),
            ("width", self.width[ids] > 0),
            ("height", self.height[ids] > 0),
        ):
            if not good.all():
                row = int(ids[np.argmin(good)])
                raise UserError(f"{self._column(name)}: row {row} cannot be: {REMEDY}")
        if self.schema.number > 1:
            self._compare_values(ids)
        for piece, parts in self.pieces.items():
            self._compare_piece(piece, {part: column[ids] for part, column in parts.items()}, ids, end)

    def _compare_piece(
        self, piece: str, parts: dict[str, np.ndarray], ids: np.ndarray, end: np.ndarray
    ) -> None:
        offset, size = parts["offset"], parts["size"]
        absent = size == 0
        for part, good in (
            ("offset", np.where(absent, offset == 0, (offset >= BLOCK) & (offset <= end))),
            ("size", absent | (size <= end - np.minimum(offset, end))),
            ("width", (parts["width"] == 0) == absent),
            ("height", (parts["height"] == 0) == absent),
        ):
            if not good.all():
                row = int(ids[np.argmin(good)])
                raise UserError(f"{self._column(f'piece.{piece}.{part}')}: row {row} cannot be: {REMEDY}")

    def _compare_values(self, ids: np.ndarray) -> None:
        spans = {name: self._spans(name, ids) for name in self.ragged}
        row, fault = self.schema.miscount({name: stop - first for name, (first, stop) in spans.items()})
        if fault:
            column = self._column(f"labels.{fault.split()[0]}.start")
            raise UserError(f"{column}: row {int(ids[row])}: {fault}: {REMEDY}")
        for name, field in self.schema.labels.items():
            file = f"labels.{name}{'.rows' if field.ragged else ''}"
            values = self.ragged[name].rows_of(ids)[0] if field.ragged else self.labels[name][ids]
            if reason := field.misfit(values.astype(np.float64)):
                raise UserError(f"{self._column(file)}: a value {reason}: {REMEDY}")

    @cached_property
    def _shard_bytes(self) -> np.ndarray:
        return np.array([entry["bytes"] for entry in self.manifest["shards"]], "u8")

    @cached_property
    def shards(self) -> list[Path]:
        """The files of the shards, by number."""
        return [self.folder / shard["name"] for shard in self.manifest["shards"]]

    def __len__(self) -> int:
        return len(self.shard)

    def __repr__(self) -> str:
        return f"ShardSet({self.name}: {len(self)} samples of {len(self.identity_start) - 1} identities)"

    def member(self, sample_id: int) -> str:
        """The name of a sample's image in its shard, `<key>.jpg`, read from the tar."""
        path = self.shards[int(self.shard[sample_id])]
        try:
            with open(path, "rb") as file:
                file.seek(int(self.offset[sample_id]) - BLOCK)
                return header_name(file.read(BLOCK))
        except (OSError, ValueError) as error:
            return f"? ({error})"  # the name goes into messages about damage, so this must not fail

    def key(self, sample_id: int) -> str:
        """`<shard file>:<member name>`: how messages name a sample."""
        return f"{self.shards[int(self.shard[sample_id])].name}:{self.member(sample_id)}"

    def identity_names(self) -> list[str]:
        """The names of the identities, by number. Raises UserError if the list is not what was packed."""
        path, entry = self.folder / "identities.txt", self._files["identities.txt"]
        data = read_bytes(path, limit=entry["bytes"], remedy=REMEDY)
        try:
            names = data.decode().split("\n")[:-1]
        except UnicodeDecodeError:
            names = []
        if hashlib.sha256(data).hexdigest() != entry["sha256"] or len(names) != len(self.identity_start) - 1:
            raise UserError(f"{path}: its lines are not those that the manifest says: {REMEDY}")
        return names


def check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise UserError for the first file that is missing or has another size than the manifest says."""
    for entry in all_files(manifest):
        path = os.path.join(folder, entry["name"])
        try:
            status = os.stat(path)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; {REMEDY}") from None
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: is not a regular file; {REMEDY}")
        if status.st_size != entry["bytes"]:
            raise UserError(f"{path}: {status.st_size} bytes, the manifest says {entry['bytes']}; {REMEDY}")
