"""A source -> packed sets: OUT/<split>/ with tar shards, index, DALI index and, last of all, the manifest.

`pack` plans (`layout.py`), lets workers write shards (`shard_worker.py`), keeps a journal of them (`journal.py`),
has the index written (`set_writer.py`) and commits. Killed at any point it leaves no manifest, and so no set; the
same call again resumes from the finished shards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.pack.journal import PackJournal, locked, remove_journal
from data_shards.pack.layout import HELD_OUT, TRAINED, VALIDATION, fingerprint, group, split_identities
from data_shards.pack.request import Request, request_facts, source_kind
from data_shards.pack.set_writer import SetWriter
from data_shards.pack.shard_worker import pack_shard
from data_shards.shard_format.keys import slug
from data_shards.shard_format.manifest import FOLDER, NAME, read_manifest, write_manifest
from data_shards.shard_format.shard_set import check_sizes
from data_shards.sources.base import Source
from data_shards.workers import run_jobs

Progress = Callable[[int, int], None]  # samples done, samples in all


@dataclass
class Packed:
    """One packed set on disk."""

    folder: Path
    manifest: dict[str, Any]
    already: bool  # it was there before


def pack(
    source: Source, out: Path, request: Request, *, workers: int = 2, progress: Progress | None = None
) -> list[Packed]:
    """Packs the source into sets below `out`. Same source and request, same bytes, whatever `workers` is.

    progress is called after every shard. Raises UserError: nothing to pack, `out` holds something else, the
    disk is full.
    """
    if workers < 1:
        raise UserError(f"workers={workers}: type the number of processes, 1 or more")
    identities, unfit = group(source.samples())
    if not identities:
        raise UserError(
            f"source={source_kind(source)}: found no pictures; give src= the folder that holds them"
        )
    name = request.name or slug(source.name).replace("/", "_")
    digest = fingerprint(identities, unfit, request_facts(source, request, name))
    splits = split_identities(
        list(identities),
        holdout=request.holdout,
        val=request.val,
        split=request.split,
        seed=request.seed,
    )
    _refuse_set(out)
    with locked(out):
        for part in {HELD_OUT, VALIDATION} - {split for split, _ in splits}:
            _refuse_held_out(out, part, source_kind(source), name, request.split)
        there = [split for split, _ in splits if _is_there(out / split, digest)]
        makers = []
        for split, people in splits:
            if split in there:
                remove_journal(out / split)
                continue
            members = {person: identities[person] for person in people}
            reported = unfit if split == splits[0][0] else []
            place = PackJournal(out / split, digest)
            makers.append(SetWriter(source, request, members, place, name=name, unfit=reported))
        try:
            _write_shards(source, request, makers, workers=workers, progress=progress)
            manifests = [maker.write_index() for maker in makers]
            for maker, manifest in zip(makers, manifests, strict=True):
                write_manifest(maker.place.folder, manifest)
        except OSError as error:
            raise UserError(
                f"out={out}: {error.strerror or error}; fix that and type the same again: finished shards stay"
            ) from None
        finally:
            for maker in makers:
                maker.place.remove_unfinished()
        for maker in makers:
            maker.place.remove()
    return [Packed(out / split, read_manifest(out / split)[0], split in there) for split, _ in splits]


def _refuse_set(out: Path) -> None:
    if (out / NAME).exists():
        raise UserError(f"out={out}: is a packed set itself; choose another folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out}: is a file; choose a folder")


def _refuse_held_out(out: Path, part: str, source: str, name: str, split: str) -> None:
    """Refuse a set of earlier held-out people beside one that now trains on them."""
    if not (out / part / NAME).exists():
        return
    held, _ = read_manifest(out / part)
    same = (held["source"], held["name"], held.get("source_split", split)) == (source, name, split)
    key, share = ("holdout", held["holdout"]) if part == HELD_OUT else ("val", held.get("val", 0))
    if share and same:
        raise UserError(
            f"{key}=0: {out / part} holds people of the same source set aside by {key}={share:g}, "
            f"who would be in {out / split} too; remove {_siblings(out / part)}, or choose another out="
        )


def _is_there(folder: Path, digest: str) -> bool:
    """Return whether this very set is in `folder`. Raises UserError if anything else does."""
    if (folder / NAME).exists():
        manifest, _ = read_manifest(folder)
        if manifest["request"] != digest:
            raise UserError(
                f"out: {folder} holds another set ({manifest['name']}, {manifest['samples']} samples, of "
                f"another source or with other keys); choose another out= or remove {_siblings(folder)}"
            )
        check_sizes(folder, manifest)
        return True
    if folder.exists() and any(folder.iterdir()) and not (folder / FOLDER).is_dir():
        raise UserError(f"out: {folder} is not empty and holds no packed set; choose another out=")
    return False


def _siblings(folder: Path) -> str:
    """The set, and those that were cut along with it: one alone beside a new one shares its people."""
    all_parts = [folder.with_name(split) for split in (TRAINED, VALIDATION, HELD_OUT)]
    there = [str(path) for path in all_parts if path.exists()]
    return " and ".join(there) if folder in all_parts and there else str(folder)


def _write_shards(
    source: Source, request: Request, makers: list[SetWriter], *, workers: int, progress: Progress | None
) -> None:
    """Has all missing shards of all sets written, again and again until no identity is left empty."""
    pending = makers
    while pending:
        todo = [
            (maker, number)
            for maker in pending
            for number in range(len(maker.plan.shards))
            if number not in maker.results
        ]
        total = sum(len(shard) for maker in makers for shard in maker.plan.shards)
        done = total - sum(len(maker.plan.shards[number]) for maker, number in todo)
        jobs = [maker.job(number) for maker, number in todo]
        for index, result in run_jobs(pack_shard, jobs, workers=workers):
            maker, number = todo[index]
            maker.accept(number, result)
            done += len(maker.plan.shards[number])
            if progress:
                progress(done, total)
        pending = [maker for maker in pending if maker.drop_empty()]
