"""A packed set in miniature for the tests of the loading side: real tars, the index in memory."""

import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import simplejpeg

from data_shards.files import file_entry
from data_shards.shard_format.manifest import write_manifest
from data_shards.shard_format.schema import Field, Schema
from data_shards.shard_format.shard_set import COLUMNS, STARTS


def photo(number: int, width: int, height: int, *, grain: float = 6.0) -> np.ndarray:
    """uint8 [height, width, 3] RGB: gradients, blobs and a little grain, like a photograph."""
    rng = np.random.default_rng(number)
    coarse = rng.uniform(20, 235, (5, 5, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(width // 12, width // 3)), int(rng.integers(height // 12, height // 3)))
        turn, colour = float(rng.uniform(0, 180)), rng.uniform(0, 255, 3).tolist()
        cv2.ellipse(image, centre, axes, turn, 0, 360, colour, -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    return np.clip(image + rng.normal(0, grain, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, *, quality: int = 90) -> bytes:
    grey = image.ndim == 2
    pixels = np.ascontiguousarray(image[..., None] if grey else image)
    return simplejpeg.encode_jpeg(pixels, quality, "GRAY" if grey else "RGB", "Gray" if grey else "420")


@dataclass
class SmallSet:
    """The attributes of `shard_set.ShardSet` that loading uses."""

    folder: Path
    shards: list[Path]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    width: np.ndarray
    height: np.ndarray
    crc: np.ndarray
    labels: dict[str, np.ndarray]
    identity_start: np.ndarray
    shard_start: np.ndarray
    schema = Schema({"weight": Field("value", "f4")})
    ragged: ClassVar[dict] = {}
    pieces: ClassVar[dict] = {}

    def __len__(self) -> int:
        return len(self.shard)

    def verify(self, ids: np.ndarray) -> None:
        """The index is in memory."""

    def key(self, sample_id: int) -> str:
        with open(self.shards[int(self.shard[sample_id])], "rb") as file:
            file.seek(int(self.offset[sample_id]) - 512)
            name = file.read(100).split(b"\0")[0].decode()
        return f"{self.shards[int(self.shard[sample_id])].name}:{name}"


def build(folder: Path, blobs: list[bytes], sizes: list[int], *, shards: int = 3) -> SmallSet:
    """Write `blobs` to `shards` tars; identity i owns `sizes[i]` consecutive ones."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = np.repeat(np.arange(len(sizes)), sizes)
    cuts = np.arange(shards + 1) * len(blobs) // shards
    paths, rows = [], []
    for number in range(shards):
        paths.append(folder / f"small-{number:06d}.tar")
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for at in range(cuts[number], cuts[number + 1]):
                label = str(int(identity[at])).encode()
                for ending, data in (("jpg", blobs[at]), ("cls", label)):
                    info = tarfile.TarInfo(f"{at:06d}.{ending}")
                    info.size = len(data)
                    if ending == "jpg":
                        height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
                        rows.append((number, tar.offset + 512, len(data), width, height, zlib.crc32(data)))
                    tar.addfile(info, io.BytesIO(data))
    shard, offset, size, width, height, crc = np.array(rows).T
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)
    labels = {"identity": identity, "weight": np.linspace(0, 1, len(blobs), dtype=np.float32)}
    return SmallSet(
        folder, paths, shard, offset, size, width, height, crc, labels, start, cuts.astype(np.uint64)
    )


def commit(built: SmallSet) -> None:
    """Index and manifest of the set on disk, so that `ShardSet.open` takes it."""
    (built.folder / "index").mkdir()
    people = len(built.identity_start) - 1
    tables = {name: getattr(built, name).astype(kind) for name, kind in COLUMNS.items()}
    tables |= {name: getattr(built, name).astype("u8") for name in STARTS}
    tables["labels.identity"] = built.labels["identity"].astype("i4")
    for name, table in tables.items():
        np.save(built.folder / "index" / f"{name}.npy", table)
    for name in ("identities.txt", "rejected.csv"):
        (built.folder / name).write_text("".join(f"{row}\n" for row in range(people)))
    files = [f"index/{name}.npy" for name in tables] + ["identities.txt", "rejected.csv"]
    counts = np.diff(built.shard_start.astype(int)).tolist()
    facts = {
        "name": "small",
        "source": "folder",
        "split": "train",
        "licence": "",
        "request": "",
        "size": 0,
        "seed": 0,
        "holdout": 0.0,
        "verify": "decode",
        "rejected": 0,
        "picture_bytes": 0,
        "converted": {},
        "samples": len(built),
        "identities": people,
        "fields": {"identity": {"dtype": "i4", "largest": people - 1}},
        "shards": [
            file_entry(path, name=path.name) | {"samples": count}
            for path, count in zip(built.shards, counts, strict=True)
        ],
        "files": [file_entry(built.folder / name, name=name) for name in files],
    }
    write_manifest(built.folder, facts)
