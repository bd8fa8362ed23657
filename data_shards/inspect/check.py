"""Compare every byte of a packed set with what it must be, and decode every image once.

The index determines headers, padding and labels of a shard, and has the crc32 of each image: so a changed
byte is not only noticed (sha256 of the shard), but reported with the member that it is in.
"""

import hashlib
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import FileError, open_regular
from data_shards.images.masks import store_mask
from data_shards.images.normalize import normalise
from data_shards.images.pixels import Rejected
from data_shards.inspect.check_twins import check_twins
from data_shards.inspect.problems import Problem, check_file, index_names, limited
from data_shards.shard_format.manifest import FOLDER, NAME, read_manifest
from data_shards.shard_format.members import label_members
from data_shards.shard_format.schema import PIECES
from data_shards.shard_format.shard_set import ShardSet
from data_shards.shard_format.ustar import BLOCK, END, header, header_name
from data_shards.workers import run_jobs


def find_sets(folder: Path) -> list[Path]:
    """The set in `folder`, or all sets one or two levels below, even unfinished ones; UserError for none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a packed set or a folder of sets")
    if _is_set(folder):
        return [folder]
    below = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir()]
    sets = sorted(path for path in below if _is_set(path))
    if not sets:
        raise UserError(f"{folder}: holds no packed set; give a folder that `rostro pack` wrote")
    return sets


def _is_set(folder: Path) -> bool:
    return (folder / NAME).exists() or (folder / FOLDER).is_dir()


def check_set(folder: Path, *, workers: int = 2) -> Iterator[Problem]:
    """All that is wrong with one set, shards in order. Reads and decodes the whole set."""
    try:
        manifest, digest = read_manifest(folder)
    except UserError as error:
        yield _named_problem(folder, str(error))
        return
    whole, damaged = True, set()
    for entry in manifest["files"]:
        for problem in check_file(folder, entry):
            damaged.add(entry["name"])
            whole = whole and not entry["name"].startswith("index/")
            yield problem
    yield from _strange_files(folder, manifest)
    shards = manifest["shards"]
    if whole:
        try:
            index = ShardSet(folder, manifest, digest)
            index.check_starts()
            index.compare_all()
            if "identities.txt" not in damaged:
                index.identity_names()
        except UserError as error:
            whole = False
            yield _named_problem(folder, str(error))
    if not whole:  # a damaged index does not say where members are
        for entry in shards:
            yield from check_file(folder, entry)
        return
    jobs = [(folder, number) for number in range(len(shards))]
    early: dict[int, list[Problem]] = {}  # results come as shards are done, but are reported in order
    keys: dict[int, np.ndarray] = {}
    due = 0
    for number, (problems, hashed) in run_jobs(check_shard, jobs, workers=workers):
        early[number], keys[number] = problems, hashed
        while due in early:
            yield from early.pop(due)
            due += 1
    yield from _doubles(folder, manifest, keys)
    yield from check_twins(folder, manifest, workers=workers)


def _doubles(folder: Path, manifest: dict[str, Any], keys: dict[int, np.ndarray]) -> Iterator[Problem]:
    """Members with equal names, which readers that go by names cannot tell apart."""
    hashes, counts = np.unique(np.concatenate([np.empty(0, "u8"), *keys.values()]), return_counts=True)
    doubled = hashes[counts > 1]
    seen: set[str] = set()
    for number in sorted(keys) if len(doubled) else ():
        if np.isin(keys[number], doubled).any():
            for name in index_names(folder, manifest, number):
                if name in seen:
                    yield Problem(manifest["shards"][number]["name"], f"{name}.jpg", "is in the set twice")
                if _key_hash(name) in doubled:
                    seen.add(name)


def _key_hash(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))


def _strange_files(folder: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """Shards that are not in the manifest: a program that takes *.tar would read them."""
    known = {entry["name"] for entry in manifest["shards"]}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in known:
            yield Problem(path.name, "", "is not in the manifest")


def _openable(path: Path) -> bool:
    """Whether the file can be read and mapped, which an empty one cannot."""
    try:
        with open_regular(path) as file:
            return bool(file.read(1))
    except (FileError, OSError):
        return False


def check_shard(folder: Path, number: int) -> tuple[list[Problem], np.ndarray]:
    """(problems of one shard, hashes of its keys [n] u8): checks its hash, its structure and its images."""
    manifest, digest = read_manifest(folder)
    shards = ShardSet(folder, manifest, digest)
    entry = manifest["shards"][number]
    problems = check_file(folder, entry)
    if problems and not _openable(folder / entry["name"]):
        return problems, np.empty(0, "u8")
    names = index_names(folder, manifest, number)
    start, stop = int(shards.shard_start[number]), int(shards.shard_start[number + 1])
    damages: list[Problem] = []
    with (
        open(folder / entry["name"], "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as tar,
    ):
        end = 0
        for row in range(start, stop):
            name = names[row - start] if row - start < len(names) else _tar_name(tar, end, row)
            reasons, end = _check_sample(tar, shards, row, name, end)
            damages += [Problem(entry["name"], member, reason) for member, reason in reasons]
        if tar[end:] != END:
            damages.append(Problem(entry["name"], "", f"end of the archive (from byte {end}) is damaged"))
    if damages:
        problems = limited(damages)
    return problems, np.array([_key_hash(name) for name in names], "u8")


def _tar_name(tar: mmap.mmap, position: int, row: int) -> str:
    try:
        return header_name(tar[position : position + BLOCK]).removesuffix(".jpg")
    except ValueError:
        return f"sample {row}"


def _check_sample(
    tar: mmap.mmap, shards: ShardSet, row: int, key: str, position: int
) -> tuple[list[tuple[str, str]], int]:
    """([(member, reason)], byte at which the next sample begins). `position`: where this one must begin."""
    problems = []
    offset, size = int(shards.offset[row]), int(shards.size[row])
    if offset != position + BLOCK:
        problems.append(
            (f"{key}.jpg", f"index says byte {offset}, in the tar it begins at {position + BLOCK}")
        )
    jpeg = tar[offset : offset + size]
    labels = label_members(shards.schema, shards.labels, shards.ragged, row)
    pieces = {name: _piece(tar, shards, name, row) for name in shards.pieces}
    files = {
        f"{name}.{PIECES[shards.schema.pieces[name].kind]}": data for name, data in pieces.items() if data
    }
    for extension, expected in {"jpg": jpeg, **labels, **files}.items():
        member, length = f"{key}.{extension}", size if extension == "jpg" else len(expected)
        last, end = offset + length, offset + length + -length % BLOCK
        if tar[offset - BLOCK : offset] != header(member.encode(), length):
            problems.append((member, f"header (bytes {offset - BLOCK} to {offset}) is damaged"))
        if tar[last:end] != bytes(end - last):
            problems.append((member, f"padding (bytes {last} to {end}) is damaged"))
        if extension in files:
            name = extension.rpartition(".")[0]
            problems += [(member, reason) for reason in _piece_reasons(expected, shards, name, row, offset)]
        elif tar[offset:last] != expected:
            shown = "the array" if extension.endswith("npy") else f"{expected.decode():.60}"
            problems.append((member, f"label is not {shown} as in the index"))
        offset = end + BLOCK
    indexed = (int(shards.width[row]), int(shards.height[row]))
    reasons = _image_reasons(jpeg, int(shards.crc[row]), indexed)
    problems += [(f"{key}.jpg", reason) for reason in reasons]
    return problems, end


def _piece(tar: mmap.mmap, shards: ShardSet, name: str, row: int) -> bytes:
    parts = shards.pieces[name]
    return tar[int(parts["offset"][row]) : int(parts["offset"][row]) + int(parts["size"][row])]


def _piece_reasons(data: bytes, shards: ShardSet, name: str, row: int, offset: int) -> Iterator[str]:
    """What is wrong with an image or a mask beside the image of a row, whose data must be at `offset`."""
    field = shards.schema.pieces[name]
    parts = {part: int(column[row]) for part, column in shards.pieces[name].items()}
    if parts["offset"] != offset:
        yield f"index says byte {parts['offset']}, in the tar it begins at {offset}"
        return
    if field.kind == "image":
        yield from _image_reasons(data, parts["crc"], (parts["width"], parts["height"]))
        return
    if zlib.crc32(data) != parts["crc"]:
        yield "mask bytes were changed (crc32 differs)"
    try:
        mask = store_mask(data, classes=len(field.names))
    except Rejected as error:
        yield str(error)
        return
    if (mask.width, mask.height) != (parts["width"], parts["height"]):
        yield f"is {mask.width} x {mask.height}, the index says {parts['width']} x {parts['height']}"


def _image_reasons(jpeg: bytes, crc: int, size: tuple[int, int]) -> Iterator[str]:
    """What is wrong with a stored image of this crc32 and size (width, height)."""
    if zlib.crc32(jpeg) != crc:
        yield "image bytes were changed (crc32 differs)"
    try:
        image = normalise(jpeg)
    except Rejected as error:
        yield str(error)
        return
    if image.converted:
        yield f"is not a plain upright JPEG: {image.converted}"
    elif (image.width, image.height) != size:
        yield f"is {image.width} x {image.height}, the index says {size[0]} x {size[1]}"


def _named_problem(folder: Path, text: str) -> Problem:
    """The problem that an error states: the file that it begins with, if the set has it, and the rest."""
    prefix = str(folder / "_")[:-1]
    if text.startswith(f"{folder}: ") or not text.startswith(prefix):
        return Problem("", "", text.removeprefix(f"{folder}: "))
    file, _, reason = text.removeprefix(prefix).partition(" ")
    return Problem(file.removesuffix(":"), "", reason)
