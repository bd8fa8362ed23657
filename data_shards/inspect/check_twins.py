"""Check the twins of a packed set: every byte against manifest and index, every small image decoded once."""

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import simplejpeg

from data_shards.errors import UserError
from data_shards.images.twin import decode_png
from data_shards.inspect.problems import Problem, check_file, index_names, limited
from data_shards.shard_format.manifest import TWINS, read_manifest
from data_shards.shard_format.shard_set import ShardSet
from data_shards.shard_format.twins import Twin, extension
from data_shards.shard_format.ustar import BLOCK, END, header
from data_shards.workers import run_jobs


def check_twins(folder: Path, manifest: dict[str, Any], *, workers: int) -> Iterator[Problem]:
    """All that is wrong with the twins of a set whose own files are good, shards in order."""
    yield from _strange_folders(folder, manifest)
    jobs = []
    for twin in manifest.get("twins", ()):
        faults = [fault for entry in twin["files"] for fault in check_file(folder, entry)]
        yield from faults
        if not faults:
            try:
                Twin(ShardSet(folder, *read_manifest(folder)), twin["size"]).compare_all()
                jobs += [(folder, twin["size"], number) for number in range(len(twin["shards"]))]
            except UserError as error:
                yield Problem("", "", str(error).removeprefix(f"{folder}/"))
    found = dict(run_jobs(_check_shard, jobs, workers=workers))
    for number in sorted(found):
        yield from found[number]


def _strange_folders(folder: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """Twins that are not in the manifest, such as unfinished ones."""
    known = {str(twin["size"]) for twin in manifest.get("twins", ())}
    for path in sorted((folder / TWINS).glob("*")):
        if path.name not in known:
            name = f"{TWINS}/{path.name}"
            yield Problem(name, "", "is not in the manifest: type rostro twins again, or remove it")


def _check_shard(folder: Path, side: int, number: int) -> list[Problem]:
    """Check hash, structure and images of one shard of a twin."""
    manifest, digest = read_manifest(folder)
    shards = ShardSet(folder, manifest, digest)
    twin = Twin(shards, side)
    entry, first = twin.entry["shards"][number], int(shards.shard_start[number])
    problems = check_file(folder, entry)
    if problems and not (twin.shards[number].is_file() and twin.shards[number].stat().st_size):
        return problems
    keys = index_names(folder, manifest, number)
    damages: list[Problem] = []
    with (
        open(twin.shards[number], "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as tar,
    ):
        end = 0
        for nth, key in enumerate(keys):
            if twin.size[first + nth]:
                member = f"{key}.{extension(side)}"
                reasons, end = _check_member(tar, twin, first + nth, member, end)
                damages += [Problem(entry["name"], member, reason) for reason in reasons]
        if tar[end:] != END:
            damages.append(Problem(entry["name"], "", f"end of the archive (from byte {end}) is damaged"))
    return limited(damages) if damages else problems


def _check_member(tar: mmap.mmap, twin: Twin, row: int, member: str, end: int) -> tuple[list[str], int]:
    """(what is wrong with a row's image, where the next member begins). end: where this one must begin."""
    reasons = []
    offset, length = int(twin.offset[row]), int(twin.size[row])
    if offset != end + BLOCK:
        reasons.append(f"index says byte {offset}, in the tar it begins at {end + BLOCK}")
    last, after = offset + length, offset + length + -length % BLOCK
    if tar[offset - BLOCK : offset] != header(member.encode(), length):
        reasons.append(f"header (bytes {offset - BLOCK} to {offset}) is damaged")
    if tar[last:after] != bytes(after - last):
        reasons.append(f"padding (bytes {last} to {after}) is damaged")
    data = tar[offset:last]
    if zlib.crc32(data) != twin.crc[row]:
        reasons.append("image bytes were changed (crc32 differs)")
    if fault := _fault(data, (int(twin.width[row]), int(twin.height[row])), member.endswith(".png")):
        reasons.append(fault)
    return reasons, after


def _fault(data: bytes, size: tuple[int, int], png: bool) -> str:
    """Why these bytes are not an image of that size ("" = they are)."""
    try:
        shape = decode_png(data, size).shape if png else simplejpeg.decode_jpeg(data, "RGB").shape
    except ValueError as error:
        return str(error).split("\n")[0]
    return "" if shape[1::-1] == size else f"is {shape[1]} x {shape[0]}, the index says {size[0]} x {size[1]}"
