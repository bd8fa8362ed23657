"""The lock file of a run, `lock.json`: read with types, replaced by one process at a time. Imports no torch.

Who may take the lock is decided in `hpc/runs/ownership.py`; the decision takes effect only if the file
is still the one on which it was based. That is checked and done under `flock` on a side file that is never
deleted, so the system frees it when its holder dies.

`flock` excludes processes of all hosts on local disks, NFS 4, NFS 3 with lockd, GPFS, BeeGFS and Lustre with
global locks. Under NFS with `local_lock` or `nolock`, and Lustre with `localflock`, it excludes those of one
host only; where a file system has no `flock`, it is left out. A first lock is made by a hard link, which is
exclusive wherever there are such links (not on exFAT and some FUSE mounts). The remaining case there is two
hosts that replace a dead owner's lock at the same moment: the file names one of them, and the other ends at
its next write (`Ownership.check`).
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import MissingFile, parse_json, read_bytes, write_bytes

SCHEMA = {
    "host?": str,
    "pid": range(1 << 32),
    "started?": (float, None),
    "job?": str,
    "restarts?": range(1 << 32),
    "slurm_restarts?": range(1 << 32),
    "queued?": bool,
}
REMEDY = "delete it if no process of the run lives"
NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
PATIENCE = 30.0  # seconds; the guard is held for a few file operations


def content(path: Path) -> bytes | None:
    """Read the bytes of the lock; None where it was never taken."""
    try:
        return read_bytes(path, remedy=REMEDY)
    except MissingFile:
        return None


def parse(path: Path, data: bytes | None) -> dict[str, Any]:
    """Parse the bytes of a lock; {} for None. Raises FileError where they are not a lock."""
    lock: dict[str, Any] = {} if data is None else parse_json(data, SCHEMA, what=str(path), remedy=REMEDY)
    return lock


def read(path: Path) -> dict[str, Any]:
    """Read the lock; {} where it was never taken. Raises FileError where it is damaged."""
    return parse(path, content(path))


def swap(path: Path, before: bytes | None, lock: Mapping[str, Any]) -> bool:
    """Write `lock` if the file still holds the bytes `before`; return whether it did. One caller wins."""
    data = json.dumps(lock, indent=1).encode() + b"\n"
    with guarded(path):
        if content(path) != before:
            return False
        if before is not None:
            write_bytes(path, data)
            return True
        draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            draft.write_bytes(data)
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            write_bytes(path, data)  # it was not there a moment ago, and the guard is held
        finally:
            draft.unlink(missing_ok=True)
        return True


def change(path: Path, **values: Any) -> None:
    """Change some entries of the lock, for its owner."""
    with guarded(path):
        write_bytes(path, json.dumps({**read(path), **values}, indent=1).encode() + b"\n")


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Keep other processes from changing the lock file `path` inside."""
    handle = os.open(path.with_name(f".{path.name}.guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _flock(handle, path)
        yield
    finally:
        os.close(handle)  # this releases the flock


def _flock(handle: int, path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in NO_FLOCK:
                return
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                raise
        if time.monotonic() > end:
            raise UserError(
                f"{path} has been held by another process for {PATIENCE:g} seconds: end that process, or wait"
            )
        time.sleep(0.01)
