"""One shard of a set's twins: decode each image once, make it small, write it. It runs in the workers."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_shards.errors import UserError
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected
from data_shards.images.twin import encode_twin
from data_shards.pack.shard_worker import COLUMNS, ShardResult
from data_shards.pack.tar_writer import TarWriter
from data_shards.shard_format.shard_set import ShardSet
from data_shards.shard_format.twins import extension, twin_sizes

Place = tuple[int, Path, Path]  # size of the twin in pixels, its tar, its DALI index


def make_twins(folder: Path, number: int, places: Sequence[Place]) -> list[ShardResult]:
    """Write the twins of shard `number` of the set in `folder`, one at each place, none of them synced.

    Raises UserError for an image that was changed or does not decode.
    """
    shards = ShardSet.open(folder)
    rows = range(int(shards.shard_start[number]), int(shards.shard_start[number + 1]))
    shards.verify(np.arange(rows.start, rows.stop))
    tables: list[list[tuple[int, ...]]] = [[] for _ in places]
    writers = [TarWriter(tar, index_path=idx) for _, tar, idx in places]
    try:
        with open(shards.shards[number], "rb") as tar:
            for row in rows:
                width, height = int(shards.width[row]), int(shards.height[row])
                sizes = [_size(width, height, side) for side, _, _ in places]
                image = _decoded(shards, tar, row) if any(map(any, sizes)) else None
                for (side, _, _), size, writer, table in zip(places, sizes, writers, tables, strict=True):
                    if image is None or not any(size):
                        table.append((0,) * len(COLUMNS))
                        continue
                    data = encode_twin(image, size, png=extension(side) == "png")
                    key = shards.member(row).removesuffix(".jpg")
                    offset = writer.add(key, {extension(side): data})
                    table.append((offset, len(data), *size, zlib.crc32(data)))
        for writer in writers:
            writer.close(sync=False)
    finally:
        for writer in writers:
            writer.abandon()
    return [_result(writer, table) for writer, table in zip(writers, tables, strict=True)]


def _size(width: int, height: int, side: int) -> tuple[int, int]:
    wide, high = twin_sizes(np.array([width]), np.array([height]), side)
    return int(wide[0]), int(high[0])


def _decoded(shards: ShardSet, tar: BinaryIO, row: int) -> np.ndarray:
    tar.seek(int(shards.offset[row]))
    data = tar.read(int(shards.size[row]))
    reason = "its bytes were changed"
    if zlib.crc32(data) == shards.crc[row]:
        try:
            image = pixels(data)
            if image.shape[1::-1] == (shards.width[row], shards.height[row]):
                return image
            reason = "its size is not that of the index"
        except Rejected as error:
            reason = str(error)
    raise UserError(
        f"{shards.key(row)} (sample {row}) does not decode ({reason}): run `rostro check {shards.folder}`"
    )


def _result(writer: TarWriter, table: list[tuple[int, ...]]) -> ShardResult:
    parts = np.array(table, np.int64).reshape(-1, len(COLUMNS)).T
    return ShardResult(writer.offset, writer.digest, dict(zip(COLUMNS, parts, strict=True)), [])
