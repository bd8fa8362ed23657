"""Packed sets copied to a folder of this node: verified while they are copied, committed by rename, used again.

`FOLDER/<digest of the set>/` is whole or not there. One process of a node copies at a time, whichever job it
belongs to. When ranks do this, and who waits: `hpc/data/staging.py`.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import sync_path
from data_shards.shard_format.manifest import NAME, read_manifest
from data_shards.shard_format.shard_set import ShardSet

CHUNK = 4 << 20
THREADS = 4  # files copied at a time: one hides the latency and the hashing of another
SLACK = 64 << 10  # bytes of a file system's own for each file
LOCK = ".rostro-stage.lock"
TEMPORARY = ".rostro-stage-tmp-"  # the folder belongs to others, too: only ours are removed


class Cancelled(Exception):
    """Another node failed: this copy is not wanted any more."""


def expanded(folder: str) -> Path:
    """`folder` with its environment variables as they are here; UserError where one is not set."""
    path = os.path.expandvars(folder)
    unknown = re.search(r"\$\{?(\w+)", path)
    if unknown:
        raise UserError(
            f"data.stage={folder}: {unknown[1]} is not set on {socket.gethostname()}: name a folder that is there, or "
            "leave data.stage empty"
        )
    if not os.path.isabs(path):
        raise UserError(f"data.stage={folder} is {path} on {socket.gethostname()}: use an absolute folder")
    return Path(path)


def place(source: str | os.PathLike[str], root: Path) -> Path:
    """Return where the set in `source` is once it is staged in `root`."""
    return root / read_manifest(Path(source))[1]


def is_copy(folder: Path) -> bool:
    """Whether the set in `folder` was staged there."""
    return (folder.parent / LOCK).exists()


def stage(
    sources: Sequence[str | os.PathLike[str]], root: Path, *, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Copy the sets in the folders `sources` to their `place` in `root`, those that are not there yet.

    Raises UserError, on one line, where the disk has no room for all of them or a file is not what its manifest
    says; Cancelled soon after `cancelled()` holds. Neither leaves anything half done.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, cancelled):
            for left in root.glob(f"{TEMPORARY}*"):  # of a job that was killed
                shutil.rmtree(left, ignore_errors=True)
            lacking = {}
            for source in map(Path, sources):
                manifest, digest = read_manifest(source)
                if not _whole(root / digest, digest):
                    lacking[digest] = (source, manifest)
            _refuse_small_disk(root, [manifest for _, manifest in lacking.values()])
            for digest, (source, manifest) in lacking.items():
                _copy_set(source, manifest, root / digest, cancelled)
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise UserError(
            f"data.stage={root} on {socket.gethostname()}: {why}: free space there, choose another folder, or leave "
            "data.stage empty"
        ) from None


@contextmanager
def _locked(root: Path, cancelled: Callable[[], bool]) -> Iterator[None]:
    """The lock goes with the process, however it ends."""
    with open(root / LOCK, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if cancelled():
                    raise Cancelled from None
                time.sleep(0.1)
        yield


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [*manifest["shards"], *manifest["files"]]


def _whole(folder: Path, digest: str) -> bool:
    """Return whether the set of that digest is in `folder`; what is left of a damaged one is removed."""
    if not folder.exists():
        return False
    try:
        found = ShardSet.open(folder).digest
    except UserError:
        found = ""
    if found != digest:
        gone = folder.rename(folder.with_name(f"{TEMPORARY}{folder.name}"))
        shutil.rmtree(gone)
    return found == digest


def _refuse_small_disk(root: Path, manifests: list[dict[str, Any]]) -> None:
    need = sum(entry["bytes"] + SLACK for manifest in manifests for entry in _entries(manifest))
    free = shutil.disk_usage(root).free
    if need > free:
        raise UserError(
            f"data.stage={root} on {socket.gethostname()}: the sets need {need / 1e9:.3f} GB, {free / 1e9:.3f} GB are "
            "free: free space there, choose another folder, or leave data.stage empty"
        )


def _copy_set(source: Path, manifest: dict[str, Any], target: Path, cancelled: Callable[[], bool]) -> None:
    draft = target.with_name(f"{TEMPORARY}{target.name}")
    pool = ThreadPoolExecutor(THREADS)
    try:
        entries = _entries(manifest)
        for folder in {(draft / entry["name"]).parent for entry in entries}:
            folder.mkdir(parents=True, exist_ok=True)
        jobs = [pool.submit(_copy_file, source, draft, entry, cancelled) for entry in entries]
        for job in jobs:
            job.result()
        (draft / NAME).write_bytes(b"".join(_chunks(source / NAME)))
        if hashlib.sha256((draft / NAME).read_bytes()).hexdigest() != target.name:
            raise UserError(f"{source / NAME} was changed while it was copied: start the run again")
        for path in (draft / NAME, draft):
            sync_path(path)
        draft.rename(target)
        sync_path(target.parent)
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(draft, ignore_errors=True)


def _copy_file(source: Path, draft: Path, entry: dict[str, Any], cancelled: Callable[[], bool]) -> None:
    """One file, durably, unless its bytes are not those of the manifest."""
    digest, copied = hashlib.sha256(), 0
    with open(draft / entry["name"], "wb") as write:
        for data in _chunks(source / entry["name"]):
            if cancelled():
                raise Cancelled
            write.write(data)
            digest.update(data)
            copied += len(data)
        write.flush()
        os.fsync(write.fileno())
    if (copied, digest.hexdigest()) != (entry["bytes"], entry["sha256"]):
        raise UserError(
            f"{source / entry['name']}: its bytes are not those that the manifest says; copy it again or pack the set "
            "again"
        )


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file; what is wrong there is not the fault of the folder that they are copied to."""
    try:
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                yield data
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): copy the set again or pack it again"
        ) from None
