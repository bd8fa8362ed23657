"""Writes a checkpoint, by one rank or by all of them together, and commits it by rename.

Rank 0 opens a folder, every rank writes and syncs its files there, and when all have said so, rank 0 adds the
manifest and renames the folder. A rank that fails says so too: none waits for it, and nothing is committed.
"""

import errno
import json
import os
import shutil
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import sync_path
from hpc.checkpoints import manifest, pieces, safetensors_writer
from hpc.checkpoints.checkpoint import Checkpoint, Tensors
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.training import fault_injection

HASHERS = 4  # files hashed at a time, while the next ones are written
Facts = dict[str, dict[str, Any]]  # file name -> bytes, sha256


def write(target: Path, checkpoint: Checkpoint, guard: Callable[[], None], comm: Comm) -> None:
    """Write the checkpoint into the folder `target`; see `store.save`."""
    draft: Path | None = None
    try:
        draft = _together(lambda: _open(target, checkpoint, guard) if comm.main else None, target, comm)[0]
        if draft is None:  # it was saved already
            return
        written = _together(partial(_write_files, draft, checkpoint, comm), target, comm)
        commit = partial(_commit, draft, target, checkpoint, written, guard)
        _together(lambda: commit() if comm.main else None, target, comm)
    except UserError:
        if draft is not None and comm.main:
            shutil.rmtree(draft, ignore_errors=True)
        raise


def _together(action: Callable[[], Any], target: Path, comm: Comm) -> list[Any]:
    """Run `action` on every rank, and return the results by rank; where one fails, raise UserError on all."""
    result, error = None, ""
    try:
        result = action()
    except Exception as failure:
        if comm.world == 1 and not isinstance(failure, OSError):
            raise
        error = _line(failure, target, comm)  # the others wait for it
    results, errors = zip(*collectives.gather_objects((result, error), comm), strict=True)
    if any(errors):
        raise UserError(next(filter(None, errors)))
    return list(results)


def _line(failure: Exception, target: Path, comm: Comm) -> str:
    """Say in one line why a checkpoint was not saved."""
    if isinstance(failure, UserError):
        return str(failure)
    rank = f" by rank {comm.rank}" if comm.world > 1 else ""
    if not isinstance(failure, OSError):
        traceback.print_exc()
        return f"checkpoint {target} was not saved{rank}: {' '.join(repr(failure).split())}"
    reason = "the disk is full" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else str(failure)
    return (
        f"checkpoint {target} was not saved{rank}, {reason}: free space there, or keep fewer with "
        "save.last=1; older checkpoints are intact, `rostro resume` continues from the newest"
    )


def _open(target: Path, checkpoint: Checkpoint, guard: Callable[[], None]) -> Path | None:
    """Make the folder in which the files are written; None where the checkpoint exists."""
    guard()
    if target.exists():
        return None
    draft = target.with_name(f".tmp-{checkpoint.clock:012d}-{os.getpid()}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)  # of a killed save whose pid was the same
    draft.mkdir()
    return draft


def _write_files(draft: Path, checkpoint: Checkpoint, comm: Comm) -> tuple[Facts, list[str]]:
    """Write this rank's files; return their facts by name, and the keys of its pieces."""
    written = {}
    with ThreadPoolExecutor(HASHERS) as pool:
        for number, (name, content) in enumerate(checkpoint.files() if comm.main else ()):
            fault_injection.crash_point(f"save{number}", checkpoint.clock)
            written[name] = _write(draft / name, content, pool)
        if checkpoint.pieces:
            name = pieces.file_name(comm.rank)
            written[name] = pieces.write(draft, comm.rank, checkpoint.pieces, checkpoint.clock, pool)
        facts: Facts = {
            name: {"bytes": size, "sha256": hashed.result()} for name, (size, hashed) in written.items()
        }
    return facts, list(checkpoint.pieces)


def _commit(
    draft: Path,
    target: Path,
    checkpoint: Checkpoint,
    written: list[tuple[Facts, list[str]]],
    guard: Callable[[], None],
) -> None:
    """Write the manifest over the files of all ranks, and rename the folder."""
    keys = ((pieces.file_name(rank), key) for rank, (_, own) in enumerate(written) for key in own)
    try:
        pieces.index(keys)
    except ValueError as error:
        raise UserError(
            f"checkpoint {target} was not saved, {error}: a sharded parameter must take part on all ranks or "
            "on none"
        ) from None
    files = {name: entry for facts, _ in written for name, entry in facts.items()}
    head = manifest.encode(checkpoint.clock, checkpoint.updates, checkpoint.meta, files)
    with ThreadPoolExecutor(1) as pool:
        safetensors_writer.write(draft / manifest.NAME, [head], pool)
    sync_path(draft)
    fault_injection.crash_point("savecommit", checkpoint.clock)
    guard()
    draft.rename(target)
    sync_path(target.parent)


def _write(path: Path, content: Tensors | dict, pool: Executor) -> tuple[int, Future[str]]:
    """Write one file durably; return its size and its hash, which may still be in the making."""
    if path.suffix == ".safetensors":
        return safetensors_writer.write(path, safetensors_writer.encode(content), pool)
    # Keys are not sorted: the series of the current interval are reported in this order.
    return safetensors_writer.write(path, [json.dumps(content, indent=1).encode()], pool)
