"""Packed sets copied to a folder of this node: verified while they are copied, committed by rename, reused.

`FOLDER/<sha256 of manifest.json>/` is whole or absent. One process of a node copies at a time, whichever job
it belongs to. `hpc/data/staging.py` decides which ranks copy and which wait.
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
from data_shards.shard_format.manifest import NAME, all_files, read_manifest
from data_shards.shard_format.shard_set import ShardSet

CHUNK = 4 << 20  # bytes that are copied at a time
THREADS = 4  # files that are copied at a time: each hides latency and hashing of another
SLACK = 64 << 10  # bytes that the file system itself needs for a file
LOCK = ".rostro-stage.lock"
TEMPORARY = ".rostro-stage-tmp-"  # other programs use the folder too: only names with this prefix are removed


class Cancelled(Exception):
    """Another node failed, so this copy is no longer needed."""


def expanded(folder: str) -> Path:
    """`folder` with the environment variables of this node filled in.

    Raises UserError where one is not set, or for a path that is not absolute.
    """
    path = os.path.expandvars(folder)
    unknown = re.search(r"\$\{?(\w+)", path)
    if unknown:
        raise UserError(
            f"data.stage={folder}: {unknown[1]} is not set on {socket.gethostname()}: "
            "name a folder that is there, or leave data.stage empty"
        )
    if not os.path.isabs(path):
        raise UserError(f"data.stage={folder} is {path} on {socket.gethostname()}: use an absolute folder")
    return Path(path)


def place(source: str | os.PathLike[str], root: Path) -> Path:
    """The folder of the set in `source` once it is staged in `root`."""
    read_manifest(Path(source))
    return root / _name(Path(source))


def _name(folder: Path) -> str:
    """The sha256 of the set's manifest, which names its copy: one with other twins is another copy."""
    return hashlib.sha256(b"".join(_chunks(folder / NAME))).hexdigest()


def is_copy(folder: Path) -> bool:
    """Whether the set in `folder` was staged there."""
    return (folder.parent / LOCK).exists()


def stage(
    sources: Sequence[str | os.PathLike[str]], root: Path, *, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Copy the sets in the folders `sources` to their `place` in `root`, except for those that are there.

    Raises UserError where the disk has no room for all of them or a file is not what its manifest says, and
    Cancelled soon after `cancelled()` is true. Neither leaves a partial copy.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, cancelled):
            for draft in root.glob(f"{TEMPORARY}*"):  # of a job that was killed
                shutil.rmtree(draft, ignore_errors=True)
            missing = {}
            for source in map(Path, sources):
                manifest, name = read_manifest(source)[0], _name(source)
                if not _whole(root / name):
                    missing[name] = (source, manifest)
            _refuse_small_disk(root, [manifest for _, manifest in missing.values()])
            for name, (source, manifest) in missing.items():
                _copy_set(source, manifest, root / name, cancelled)
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise UserError(
            f"data.stage={root} on {socket.gethostname()}: {why}: "
            "free space there, choose another folder, or leave data.stage empty"
        ) from None


@contextmanager
def _locked(root: Path, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock of the folder, which ends with the process, even a killed one. Raises Cancelled."""
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


def _whole(folder: Path) -> bool:
    """Whether the set that gives `folder` its name is in it; a damaged one is removed."""
    if not folder.exists():
        return False
    try:
        ShardSet.open(folder)
        copied = _name(folder)
    except UserError:
        copied = ""
    if copied != folder.name:
        damaged = folder.rename(folder.with_name(f"{TEMPORARY}{folder.name}"))
        shutil.rmtree(damaged)
    return copied == folder.name


def _refuse_small_disk(root: Path, manifests: list[dict[str, Any]]) -> None:
    need = sum(entry["bytes"] + SLACK for manifest in manifests for entry in all_files(manifest))
    free = shutil.disk_usage(root).free
    if need > free:
        raise UserError(
            f"data.stage={root} on {socket.gethostname()}: "
            f"the sets need {need / 1e9:.3f} GB, {free / 1e9:.3f} GB are free: "
            "free space there, choose another folder, or leave data.stage empty"
        )


def _copy_set(source: Path, manifest: dict[str, Any], target: Path, cancelled: Callable[[], bool]) -> None:
    draft = target.with_name(f"{TEMPORARY}{target.name}")
    pool = ThreadPoolExecutor(THREADS)
    try:
        entries = all_files(manifest)
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
    """Copy one file durably. Raises UserError if its bytes are not those of the manifest, or Cancelled."""
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
            f"{source / entry['name']}: its bytes are not those that the manifest says; "
            "copy it again or pack the set again"
        )


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file. Raises UserError that blames the file, not the folder to which it is copied."""
    try:
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                yield data
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): copy the set again or pack it again"
        ) from None
