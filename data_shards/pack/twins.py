"""Add twins to a packed set: low-resolution copies of its images, see `shard_format/twins.py`.

Each twin has a journal of its own, as a set has while it is packed, and becomes part of the set when the
manifest that names it replaces the old one. Killed at any point, the set is what it was; the same call again
resumes from the finished shards.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_shards.errors import UserError
from data_shards.files import renamed, sync_path
from data_shards.images import twin as twin_file
from data_shards.pack.journal import PackJournal, locked, remove_journal
from data_shards.pack.shard_worker import ShardResult
from data_shards.pack.twin_shard import make_twins
from data_shards.shard_format.columns import BLOCKS, block_digests
from data_shards.shard_format.manifest import TWINS, digest_without_twins, write_manifest
from data_shards.shard_format.schema import PIECE_COLUMNS
from data_shards.shard_format.shard_set import CHUNK, ShardSet
from data_shards.shard_format.twins import (
    LARGEST,
    MOST_PNG,
    SMALLEST,
    extension,
    twin_entry,
    twin_sizes,
    twins_of,
)
from data_shards.workers import run_jobs

Progress = Callable[[int, int], None]  # called with (samples done, samples in total)


def check_sides(sides: Sequence[int], *, key: str = "twins", size: int = 0) -> list[int]:
    """The sizes in order. UserError for one that no twin has, or that is not below `size` (0 = unknown)."""
    for side in sides:
        if not SMALLEST <= side <= LARGEST:
            raise UserError(f"{key}=[{side}]: type pixels of the shorter side, from {SMALLEST} to {LARGEST}")
        if size and side >= size:
            raise UserError(f"{key}=[{side}]: images of size={size} are not larger; type a smaller one")
    if len(set(sides)) != len(sides):
        raise UserError(f"{key}=[{','.join(map(str, sides))}]: has a size twice; type each once")
    return sorted(sides)


def add_twins(
    folder: Path, sides: Sequence[int], *, workers: int = 2, progress: Progress | None = None
) -> list[int]:
    """Make those of the twins that the set in `folder` does not have; returns their sizes.

    The same set gives the same bytes at any `workers`. Raises UserError for a size of which no image has a
    twin, an image that does not decode, or a full disk.
    """
    sides = check_sides(sides, key="sizes")
    if workers < 1:
        raise UserError(f"workers={workers}: type the number of processes, 1 or more")
    with locked(folder, key="set"):
        shards = ShardSet.open(folder)
        for side in twins_of(shards):
            remove_journal(folder / TWINS / str(side))
        missing = [side for side in sides if side not in twins_of(shards)]
        for side in missing:
            _refuse_none(shards, side)
        if missing:
            try:
                _write(shards, missing, workers=workers, progress=progress)
            except OSError as error:
                raise UserError(
                    f"{folder}: {error.strerror or error}; fix that and type the same again: "
                    "finished shards stay"
                ) from None
    return missing


def _refuse_none(shards: ShardSet, side: int) -> None:
    for low in range(0, len(shards), CHUNK):
        rows = slice(low, low + CHUNK)
        if twin_sizes(shards.width[rows], shards.height[rows], side)[0].any():
            return
    raise UserError(f"sizes=[{side}]: no image of {shards.folder} is larger than that; type a smaller size")


def _write(shards: ShardSet, sides: Sequence[int], *, workers: int, progress: Progress | None) -> None:
    folder, journals = shards.folder, {}
    if digest_without_twins(shards.manifest) != shards.digest:  # runs would take it for another set
        raise UserError(f"{folder}: its manifest was not written by `rostro pack`; pack the set again")
    for side in sides:
        (folder / TWINS).mkdir(exist_ok=True)
        journals[side] = PackJournal(folder / TWINS / str(side), _fingerprint(shards, side))
    try:
        results = _write_shards(shards, journals, workers=workers, progress=progress)
        entries = [_write_index(shards, side, results[side]) for side in sides]
        twins = sorted([*shards.manifest.get("twins", ()), *entries], key=lambda twin: twin["size"])
        write_manifest(folder, {**shards.manifest, "twins": twins})
    finally:
        for journal in journals.values():
            journal.remove_unfinished()
    for journal in journals.values():
        journal.remove()


def _fingerprint(shards: ShardSet, side: int) -> str:
    """The sha256 of all that decides what a twin is."""
    facts = {"set": shards.digest, "size": side, "filter": "area", "file": extension(side)}
    facts |= {"quality": twin_file.QUALITY} if side > MOST_PNG else {"compression": 0}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _write_shards(
    shards: ShardSet, journals: dict[int, PackJournal], *, workers: int, progress: Progress | None
) -> dict[int, list[ShardResult]]:
    """Write what is missing of all shards; returns {size: what each shard of the twin contains}."""
    stems = [path.stem for path in shards.shards]
    counts = np.diff(shards.shard_start.astype(np.int64)).tolist()
    results: dict[int, dict[int, ShardResult]] = {}
    for side, journal in journals.items():
        known = {number: journal.finished(stem, number) for number, stem in enumerate(stems)}
        results[side] = {number: result for number, result in known.items() if result is not None}
    todo = [
        (number, lacking)
        for number in range(len(stems))
        if (lacking := [side for side in journals if number not in results[side]])
    ]
    done = len(shards) - sum(counts[number] for number, _ in todo)
    jobs = []
    for number, lacking in todo:
        places = [
            (side, *(journals[side].temporary(f"{stems[number]}.{end}") for end in ("tar", "idx")))
            for side in lacking
        ]
        jobs.append((shards.folder, number, places))
    for index, made in run_jobs(make_twins, jobs, workers=workers):
        number, lacking = todo[index]
        for side, result in zip(lacking, made, strict=True):
            journals[side].commit(stems[number], number, result)
            results[side][number] = result
        done += counts[number]
        if progress:
            progress(done, len(shards))
    return {side: [parts[number] for number in range(len(stems))] for side, parts in results.items()}


def _write_index(shards: ShardSet, side: int, results: Sequence[ShardResult]) -> dict[str, object]:
    """Write the columns of a twin; returns its entry in the manifest."""
    folder = shards.folder / TWINS / str(side)
    (folder / "index").mkdir(exist_ok=True)
    columns = {
        f"index/{name}.npy": np.concatenate([result.table[name] for result in results]).astype(kind)
        for name, kind in sorted(PIECE_COLUMNS.items())
    }
    for name, column in columns.items():
        with renamed(folder / name) as file:
            np.save(file, column, allow_pickle=False)
    with renamed(folder / BLOCKS) as file:
        for name in columns:
            file.writelines(block_digests(folder / name))
    for path in (folder / "index", folder, folder.parent, shards.folder):
        sync_path(path)
    stems = [path.stem for path in shards.shards]
    counts = [int(np.count_nonzero(result.table["size"])) for result in results]
    return {
        "size": side,
        "samples": sum(counts),
        "shards": [
            {
                "name": f"{TWINS}/{side}/{stem}.tar",
                "samples": count,
                "bytes": result.num_bytes,
                "sha256": result.sha256,
            }
            for stem, count, result in zip(stems, counts, results, strict=True)
        ],
        "files": [
            twin_entry(shards.folder, name, side=side)
            for name in (*columns, BLOCKS, *(f"{stem}.idx" for stem in stems))
        ],
    }
