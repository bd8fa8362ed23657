"""Twins: the images of a set at a low resolution, beside it, with the same ids in the same order.

`SET/twins/64/` holds a tar for each shard of the set, its DALI index, and columns with a row a sample. The
shorter side of each small image is the twin's size: nothing is cut, so every crop of an image has its
counterpart. An image that is not larger has none. Labels are the set's own. Written by `pack/twins.py`.
"""

from pathlib import Path

import numpy as np

from data_shards.errors import UserError
from data_shards.files import file_entry
from data_shards.shard_format.columns import BLOCKS, REMEDY, Blocks, load_column, verify_file
from data_shards.shard_format.manifest import TWINS
from data_shards.shard_format.schema import PIECE_COLUMNS
from data_shards.shard_format.shard_set import CHUNK, WHOLE, ShardSet
from data_shards.shard_format.ustar import BLOCK

SMALLEST, LARGEST = 8, 4096  # pixels of the shorter side
MOST_PNG = 64  # twins up to this size are PNG, larger ones JPEG


def extension(side: int) -> str:
    """The kind of file in which a twin of this size is stored, and its member's extension."""
    return "png" if side <= MOST_PNG else "jpg"


def twin_sizes(width: np.ndarray, height: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(width, height) [n] int64 of the twins of images [n]: the longer side is rounded; 0 = there is none."""
    width, height = np.asarray(width, np.int64), np.asarray(height, np.int64)
    short = np.maximum(np.minimum(width, height), 1)
    larger = short > side
    wide, high = ((2 * length * side + short) // (2 * short) for length in (width, height))
    return np.where(larger, wide, 0), np.where(larger, high, 0)


class Twin:
    """One twin of an opened set; its columns are read-only maps of files, 0 where a sample has no twin."""

    offset: np.ndarray  # [n] u8: the file's bytes are at [offset, offset + size) of the twin's shard
    size: np.ndarray  # [n] u4
    width: np.ndarray  # [n] u2, pixels
    height: np.ndarray  # [n] u2
    crc: np.ndarray  # [n] u4: zlib.crc32 of the bytes

    def __init__(self, shards: ShardSet, side: int) -> None:
        """Map the columns, whose bytes `open_twin` verifies. side: its size in pixels."""
        self.side, self.parent = side, shards
        self.entry = next(twin for twin in shards.manifest["twins"] if twin["size"] == side)
        self.folder = shards.folder / TWINS / str(side)
        self.shard = shards.shard  # a twin's tars are cut where the set's are
        self.shards: list[Path] = [shards.folder / entry["name"] for entry in self.entry["shards"]]
        self.columns = {
            f"index/{name}.npy": load_column(self.folder / "index" / f"{name}.npy", kind, len(shards))
            for name, kind in PIECE_COLUMNS.items()
        }
        for name in PIECE_COLUMNS:
            setattr(self, name, self.columns[f"index/{name}.npy"])
        self._blocks: Blocks | None = None

    def __len__(self) -> int:
        return len(self.offset)

    def verify_columns(self) -> None:
        """Raise UserError if the index was changed: now where it is small, else when rows are needed."""
        prefix = f"{TWINS}/{self.side}/"
        files = {entry["name"].removeprefix(prefix): entry for entry in self.entry["files"]}
        if sum(files[name]["bytes"] for name in self.columns) > WHOLE:
            self._blocks = Blocks(self.folder, self.columns, files[BLOCKS])
            return
        for name in self.columns:
            verify_file(self.folder / name, files[name])
        self.compare(np.arange(len(self)))

    def compare_all(self) -> None:
        """Raise UserError unless all rows fit the hashes of blocks and the images."""
        prefix = f"{TWINS}/{self.side}/"
        entry = next(each for each in self.entry["files"] if each["name"] == f"{prefix}{BLOCKS}")
        self._blocks = Blocks(self.folder, self.columns, entry)
        for low in range(0, len(self), CHUNK):
            self.verify(np.arange(low, min(low + CHUNK, len(self))))

    def verify(self, ids: np.ndarray) -> None:
        """Raise UserError if the index of these rows is not what was packed. Call it before they are used."""
        if self._blocks is not None:
            for name in self.columns:
                self._blocks.verify(name, ids, ids + 1)
            self.compare(ids)

    def compare(self, ids: np.ndarray) -> None:
        """Raise UserError unless these rows have the sizes that follow from their images, inside shards."""
        wide, high = twin_sizes(self.parent.width[ids], self.parent.height[ids], self.side)
        offset, size = self.offset[ids].astype(np.int64), self.size[ids].astype(np.int64)
        ends = np.array([entry["bytes"] for entry in self.entry["shards"]], np.int64)[self.shard[ids]]
        absent = wide == 0
        for name, good in (
            ("width", self.width[ids] == wide),
            ("height", self.height[ids] == high),
            ("size", (size == 0) == absent),
            ("offset", np.where(absent, offset == 0, (offset >= BLOCK) & (offset + size <= ends))),
        ):
            if not good.all():
                row = int(ids[np.argmin(good)])
                raise UserError(f"{self.folder / 'index' / name}.npy: row {row} cannot be: {REMEDY}")

    def key(self, sample_id: int) -> str:
        """`<shard file>:<member name>`: how messages name a sample."""
        member = self.parent.member(sample_id).removesuffix("jpg") + extension(self.side)
        return f"{TWINS}/{self.side}/{self.shards[int(self.shard[sample_id])].name}:{member}"


def twins_of(shards: ShardSet) -> list[int]:
    """The sizes of the twins that a set has, ascending."""
    return sorted(twin["size"] for twin in shards.manifest.get("twins", ()))


def open_twin(shards: ShardSet, side: int) -> Twin:
    """Open a twin of a set after comparing its index with the manifest. UserError if the set has none."""
    if side not in twins_of(shards):
        there = f"only {', '.join(map(str, twins_of(shards)))}" if twins_of(shards) else "none"
        raise UserError(
            f"{shards.folder}: has no twin of {side} pixels ({there}): type rostro twins {shards.folder} "
            f"sizes=[{side}]"
        )
    twin = Twin(shards, side)
    twin.verify_columns()
    return twin


def twin_entry(folder: Path, name: str, *, side: int) -> dict[str, object]:
    """The entry of a twin's file in the manifest; folder: of the set, name: in the twin's folder."""
    return file_entry(folder / TWINS / str(side) / name, name=f"{TWINS}/{side}/{name}")
