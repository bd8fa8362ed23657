"""One shard of a pack: read, normalise and write its samples. It runs in the workers."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_shards.images.normalize import normalise
from data_shards.images.pixels import Rejected
from data_shards.pack.layout import Entry
from data_shards.pack.tar_writer import TarWriter
from data_shards.sources.base import Source

COLUMNS = ("offset", "size", "width", "height", "crc", "labels.identity")


@dataclass
class ShardResult:
    """What a written shard contains. All arrays have one row a sample, in the order of the tar."""

    num_bytes: int  # of the tar
    sha256: str
    table: dict[str, np.ndarray]  # offset, size, width, height, crc, labels.<field>
    rejected: list[tuple[str, str]]  # path, reason
    converted: dict[str, int] = field(default_factory=dict)  # {what was done: how many}

    def __len__(self) -> int:
        return len(self.table["offset"])


def pack_shard(
    source: Source, entries: list[Entry], tar: Path, idx: Path, size: int | None, verify: bool
) -> ShardResult:
    """Write the samples to `tar` and its DALI index to `idx`, neither of them synced.

    size: side of the stored squares in pixels (None = images keep their size). verify: decode the images that
    keep their bytes. An image that cannot be read or decoded is left out and listed. Raises OSError if the
    shard cannot be written.
    """
    rows: list[tuple[int, int, int, int, int, int]] = []
    labels: list[tuple[float, ...]] = []
    rejected: list[tuple[str, str]] = []
    converted: dict[str, int] = {}
    writer = TarWriter(tar, index_path=idx)
    try:
        for key, identity, sample in entries:
            try:
                image = normalise(source.read(sample), size=size, crop=sample.crop, verify=verify)
            except (Rejected, OSError) as error:
                rejected.append((sample.path, reason(error)))
                continue
            jpeg = image.jpeg
            offset = writer.add(key, {"jpg": jpeg, "cls": b"%d" % identity})
            rows.append((offset, len(jpeg), image.width, image.height, zlib.crc32(jpeg), identity))
            labels.append(sample.labels)
            if image.converted:
                converted[image.converted] = converted.get(image.converted, 0) + 1
        writer.close(sync=False)
    finally:
        writer.abandon()
    table = dict(zip(COLUMNS, np.array(rows, np.int64).reshape(-1, len(COLUMNS)).T, strict=True))
    values = np.array(labels, np.float64).reshape(len(rows), len(source.fields)).T
    for (name, kind), column in zip(source.fields.items(), values, strict=True):
        table[f"labels.{name}"] = column.astype(kind)
    return ShardResult(writer.offset, writer.digest, table, rejected, converted)


def reason(error: Exception) -> str:
    """The reason in rejected.csv for a file that could not be read or decoded."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return str(error)
