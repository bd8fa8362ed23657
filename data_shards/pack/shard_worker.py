"""One shard of a pack: read, normalise and write its samples. It runs in the workers."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_shards.images.pixels import Rejected
from data_shards.pack.labels import label_columns
from data_shards.pack.layout import Entry
from data_shards.pack.pieces import StoredPiece, read_pieces
from data_shards.pack.tar_writer import TarWriter
from data_shards.shard_format.members import label_members
from data_shards.shard_format.schema import PIECE_COLUMNS, PIECES, Schema
from data_shards.shard_format.ustar import member_length
from data_shards.sources.base import Source

COLUMNS = tuple(PIECE_COLUMNS)  # of the image, and of each piece beside it


@dataclass
class ShardResult:
    """What a written shard contains. Arrays have one row a sample, in the order of the tar."""

    num_bytes: int  # of the tar
    sha256: str
    # offset, size, width, height, crc, labels.<field> and labels.identity; of a ragged field those of all
    # samples one after another as labels.<field>.rows, and how many each sample has as labels.<field>.count
    table: dict[str, np.ndarray]
    rejected: list[tuple[str, str]]  # path, reason
    converted: dict[str, int] = field(default_factory=dict)  # {what was done: how many}

    def __len__(self) -> int:
        return len(self.table["offset"])


def pack_shard(
    source: Source, schema: Schema, entries: list[Entry], tar: Path, idx: Path, size: int | None, verify: bool
) -> ShardResult:
    """Write the samples to `tar` and its DALI index to `idx`, neither of them synced.

    size: side of the stored squares in pixels (None = images keep their size). verify: decode the images that
    keep their bytes. An image that cannot be read or decoded is left out and listed. Raises OSError if the
    shard cannot be written, UserError for a label that does not fit its field.
    """
    rows: dict[str, list[tuple[int, ...]]] = {name: [] for name in ("image", *schema.pieces)}
    packed: list[int] = []  # numbers of the entries that are in the shard
    labels, ragged = label_columns(schema, [entry.sample for entry in entries])
    labels["identity"] = np.array([entry.identity for entry in entries], "i4")
    rejected: list[tuple[str, str]] = []
    converted: dict[str, int] = {}
    writer = TarWriter(tar, index_path=idx)
    try:
        for number, (key, _, sample) in enumerate(entries):
            try:
                pieces = read_pieces(source, schema, sample, size=size, verify=verify)
            except (Rejected, OSError) as error:
                rejected.append((sample.path, reason(error)))
                continue
            members = {"jpg": pieces["image"].data, **label_members(schema, labels, ragged, number)}
            places = {"image": "jpg"}
            for name in list(pieces)[1:]:
                places[name] = f"{name}.{PIECES[schema.pieces[name].kind]}"
                members[places[name]] = pieces[name].data
            offsets = dict(zip(members, _offsets(writer.add(key, members), members), strict=True))
            for name, table_rows in rows.items():
                piece = pieces.get(name)
                table_rows.append(_row(offsets[places[name]], piece) if piece else (0,) * len(COLUMNS))
            packed.append(number)
            for piece in pieces.values():
                if piece.converted:
                    converted[piece.converted] = converted.get(piece.converted, 0) + 1
        writer.close(sync=False)
    finally:
        writer.abandon()
    table: dict[str, np.ndarray] = {}
    for name, table_rows in rows.items():
        parts = np.array(table_rows, np.int64).reshape(-1, len(COLUMNS)).T
        prefix = "" if name == "image" else f"piece.{name}."
        table |= {f"{prefix}{part}": column for part, column in zip(COLUMNS, parts, strict=True)}
    table |= {f"labels.{name}": column[packed] for name, column in labels.items()}
    for name, each in ragged.items():
        kept, counts = each.rows_of(np.array(packed, np.int64))
        table |= {f"labels.{name}.rows": kept, f"labels.{name}.count": counts}
    return ShardResult(writer.offset, writer.digest, table, rejected, converted)


def _offsets(first: int, members: Mapping[str, bytes]) -> Iterator[int]:
    """Where the data of each member is, if that of the first one is at `first`."""
    for data in members.values():
        yield first
        first += member_length(len(data))


def _row(offset: int, piece: StoredPiece) -> tuple[int, ...]:
    return offset, len(piece.data), piece.width, piece.height, zlib.crc32(piece.data)


def reason(error: Exception) -> str:
    """The reason in rejected.csv for a file that could not be read or decoded."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return str(error)
