"""Pack a source into sets: OUT/<split>/ with tar shards, index, DALI index and, last of all, the manifest.

`pack` plans (`layout.py`), lets workers write shards (`shard_worker.py`), keeps a journal of them
(`journal.py`), has the index written (`set_writer.py`) and commits. Killed at any point it leaves no
manifest, and so no set; the same call again resumes from the finished shards.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.pack.copies import with_copies_together
from data_shards.pack.journal import PackJournal, locked, remove_journal
from data_shards.pack.layout import (
    HELD_OUT,
    TRAINED,
    VALIDATION,
    Division,
    fingerprint,
    group,
    is_unknown,
    split_identities,
    split_samples,
)
from data_shards.pack.request import Request, request_facts, source_kind
from data_shards.pack.set_writer import SetWriter
from data_shards.pack.shard_worker import pack_shard
from data_shards.pack.strata import classes_of_groups, divide_exactly, refuse_one_sided
from data_shards.shard_format.keys import slug, visible
from data_shards.shard_format.manifest import FOLDER, NAME, read_manifest, write_manifest
from data_shards.shard_format.schema import LAST_AXIS, Schema, declared_schema
from data_shards.shard_format.shard_set import check_sizes
from data_shards.sources.base import Sample, Source
from data_shards.workers import run_jobs

Progress = Callable[[int, int], None]  # called with (samples done, samples in total)


@dataclass
class Packed:
    """One packed set on disk."""

    folder: Path
    manifest: dict[str, Any]
    already: bool  # an earlier call has packed it


def pack(
    source: Source, out: Path, request: Request, *, workers: int = 2, progress: Progress | None = None
) -> list[Packed]:
    """Pack the source into sets below `out`. Equal source and request give equal bytes at any `workers`.

    progress is called after every shard. Raises UserError if there is nothing to pack, `out` contains
    something else, or the disk is full.
    """
    if workers < 1:
        raise UserError(f"workers={workers}: type the number of processes, 1 or more")
    identities, unfit = group(source.samples())
    if not identities:
        raise UserError(
            f"source={source_kind(source)}: found no images; give src= the folder that holds them"
        )
    knows_people = not any(map(is_unknown, identities))
    if request.holdout or request.val:
        identities = with_copies_together(source, identities)
    schema = declared_schema(source.fields, source.cls, knows_people=knows_people)
    _refuse_moved(source, schema, request, identities)
    _refuse_unclustered(source, identities)
    _refuse_shares(source, request, identities)
    name = request.name or slug(source.name).replace("/", "_")
    digest = fingerprint(identities, unfit, request_facts(source, schema, request, name))
    divide = partial(_divide, schema, request, identities)
    splits = split_samples(identities, divide, seed=request.seed, cluster=source.cluster)
    refuse_one_sided(schema, splits, holdout=request.holdout, val=request.val)
    _refuse_set(out)
    with locked(out):
        for part in {HELD_OUT, VALIDATION} - {split for split, _ in splits}:
            _refuse_held_out(out, part, source_kind(source), name, request.split)
        packed = [split for split, _ in splits if _is_packed(out / split, digest)]
        writers = []
        for split, members in splits:
            if split in packed:
                remove_journal(out / split)
                continue
            reported = unfit if split == splits[0][0] else []
            journal = PackJournal(out / split, digest)
            writers.append(SetWriter(source, schema, request, members, journal, name=name, unfit=reported))
        try:
            _write_shards(writers, workers=workers, progress=progress)
            manifests = [writer.write_index() for writer in writers]
            for writer, manifest in zip(writers, manifests, strict=True):
                write_manifest(writer.journal.folder, manifest)
        except OSError as error:
            raise UserError(
                f"out={out}: {error.strerror or error}; fix that and type the same again: "
                "finished shards stay"
            ) from None
        finally:
            for writer in writers:
                writer.journal.remove_unfinished()
        for writer in writers:
            writer.journal.remove()
    return [Packed(out / split, read_manifest(out / split)[0], split in packed) for split, _ in splits]


def _divide(
    schema: Schema, request: Request, identities: Mapping[str, Sequence[Sample]], groups: Sequence[str]
) -> Division:
    """[(split, its groups)], as the request asks."""
    holdout, val, seed = request.holdout, request.val, request.seed
    if not request.exact:
        return split_identities(groups, holdout=holdout, val=val, split=request.split, seed=seed)
    classes = classes_of_groups(schema, identities)
    return divide_exactly({name: classes[name] for name in groups}, holdout=holdout, val=val, seed=seed)


def _refuse_shares(source: Source, request: Request, identities: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse shares where the source states the set of every image: they would divide nothing."""
    shares = {key: getattr(request, key) for key in ("holdout", "val") if getattr(request, key)}
    parts = {sample.split for members in identities.values() for sample in members}
    if shares and "" not in parts:
        typed = " ".join(f"{key}={share:g}" for key, share in shares.items())
        remedy = " or type partition=none, which ignores them" if "partition" in request.options else ""
        raise UserError(
            f"{typed}: source={source_kind(source)} has official splits here ({', '.join(sorted(parts))}), "
            f"and these decide for every image; leave {' and '.join(shares)} out{remedy}"
        )


def _refuse_unclustered(source: Source, identities: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse people with several images of a source that does not keep them together."""
    many = next((members for members in identities.values() if len(members) > 1), None)
    if many and not source.cluster:
        raise UserError(
            f"source={source_kind(source)}: cluster=False, but {visible(many[0].identity)!r} has several "
            f"images ({visible(many[1].path)}); correct the source: cluster=True, or a group instead of the "
            "identity"
        )


def _refuse_moved(
    source: Source, schema: Schema, request: Request, identities: Mapping[str, Sequence[Sample]]
) -> None:
    """Refuse to cut or resize images where labels state places in them."""
    place = next((name for name, field in schema.fields.items() if field.kind in (*LAST_AXIS, "mask")), "")
    if not place:
        return
    why = f"source={source_kind(source)} states places in pixels ({place})"
    if request.size:
        raise UserError(f"size={request.size}: {why}: leave size out")
    for sample in itertools.chain.from_iterable(identities.values()):
        if sample.crop is not None:
            raise UserError(f"crop={sample.crop} of {sample.path}: {why}: leave crop out")


def _refuse_set(out: Path) -> None:
    if (out / NAME).exists():
        raise UserError(f"out={out}: is a packed set itself; choose another folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out}: is a file; choose a folder")


def _refuse_held_out(out: Path, part: str, source: str, name: str, split: str) -> None:
    """Refuse to train on people who are held out in a set beside."""
    if not (out / part / NAME).exists():
        return
    manifest, _ = read_manifest(out / part)
    packed_from = (manifest["source"], manifest["name"], manifest.get("source_split", split))
    key = "holdout" if part == HELD_OUT else "val"
    share = manifest.get(key, 0)
    if share and packed_from == (source, name, split):
        raise UserError(
            f"{key}=0: {out / part} holds people of the same source set aside by {key}={share:g}, "
            f"who would be in {out / split} too; remove {_siblings(out / part)}, or choose another out="
        )


def _is_packed(folder: Path, digest: str) -> bool:
    """Whether this very set is in `folder` already. Raises UserError if something else is."""
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
    """The set and those cut along with it: if only some are removed, a new set shares people with others."""
    all_parts = [folder.with_name(split) for split in (TRAINED, VALIDATION, HELD_OUT)]
    existing = [str(path) for path in all_parts if path.exists()]
    return " and ".join(existing) if folder in all_parts and existing else str(folder)


def _write_shards(writers: list[SetWriter], *, workers: int, progress: Progress | None) -> None:
    """Write all missing shards of all sets, again and again until no identity is left empty."""
    pending = writers
    while pending:
        todo = [
            (writer, number)
            for writer in pending
            for number in range(len(writer.plan.shards))
            if number not in writer.results
        ]
        total = sum(len(shard) for writer in writers for shard in writer.plan.shards)
        done = total - sum(len(writer.plan.shards[number]) for writer, number in todo)
        jobs = [writer.job(number) for writer, number in todo]
        for index, result in run_jobs(pack_shard, jobs, workers=workers):
            writer, number = todo[index]
            writer.accept(number, result)
            done += len(writer.plan.shards[number])
            if progress:
                progress(done, total)
        pending = [writer for writer in pending if writer.drop_empty()]
