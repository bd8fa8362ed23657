"""One shard of a pack: read, normalise and write its samples. It runs in the workers."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_shards.images.normalize import normalise
from data_shards.images.pixels import Rejected
from data_shards.pack.labels import label_columns
from data_shards.pack.layout import Entry
from data_shards.pack.tar_writer import TarWriter
from data_shards.shard_format.members import label_members
from data_shards.shard_format.schema import Schema
from data_shards.sources.base import Source

COLUMNS = ("offset", "size", "width", "height", "crc")


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
    rows: list[tuple[int, int, int, int, int]] = []
    packed: list[int] = []  # numbers of the entries that are in the shard
    labels, ragged = label_columns(schema, [entry.sample for entry in entries])
    labels["identity"] = np.array([entry.identity for entry in entries], "i4")
    rejected: list[tuple[str, str]] = []
    converted: dict[str, int] = {}
    writer = TarWriter(tar, index_path=idx)
    try:
        for number, (key, _, sample) in enumerate(entries):
            try:
                image = normalise(source.read(sample), size=size, crop=sample.crop, verify=verify)
            except (Rejected, OSError) as error:
                rejected.append((sample.path, reason(error)))
                continue
            jpeg = image.jpeg
            offset = writer.add(key, {"jpg": jpeg, **label_members(schema, labels, ragged, number)})
            rows.append((offset, len(jpeg), image.width, image.height, zlib.crc32(jpeg)))
            packed.append(number)
            if image.converted:
                converted[image.converted] = converted.get(image.converted, 0) + 1
        writer.close(sync=False)
    finally:
        writer.abandon()
    table = dict(zip(COLUMNS, np.array(rows, np.int64).reshape(-1, len(COLUMNS)).T, strict=True))
    table |= {f"labels.{name}": column[packed] for name, column in labels.items()}
    for name, each in ragged.items():
        kept, counts = each.rows_of(np.array(packed, np.int64))
        table |= {f"labels.{name}.rows": kept, f"labels.{name}.count": counts}
    return ShardResult(writer.offset, writer.digest, table, rejected, converted)


def reason(error: Exception) -> str:
    """The reason in rejected.csv for a file that could not be read or decoded."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return str(error)
