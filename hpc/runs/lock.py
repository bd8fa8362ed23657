"""The lock file of a run, `lock.json`: read with types, and replaced by one process at a time. Imports no torch.

Who may take the lock is decided in `hpc/runs/run_dir.py`; here the decision becomes true only if the file is still the
one that it was made by. That is checked and done under `flock` on a side file that is never deleted, so the system
frees it when its holder dies.

What holds where: `flock` excludes processes of all hosts on local disks, NFS 4, NFS 3 with lockd, GPFS, BeeGFS and
Lustre with global locks, and Lustre mounted with `flock`. Under NFS with `local_lock` or `nolock`, and Lustre with
`localflock`, it excludes those of one host only; where a file system has none it is left out. A first lock is made by a
hard link, which is exclusive wherever there are such links (not on exFAT and some FUSE mounts). So what remains there
are two hosts that replace a dead owner's lock in the same moment: the file names one of them, and the other ends at its
next write (`RunDir.check_owner`).
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
PATIENCE = 30.0  # seconds; it is held for a few file operations


def content(path: Path) -> bytes | None:
    """The bytes of the lock; None where nobody ever took it."""
    try:
        return read_bytes(path, remedy=REMEDY)
    except MissingFile:
        return None


def parse(path: Path, data: bytes | None) -> dict[str, Any]:
    """What the bytes of a lock say; {} for None. Raises FileError where they are not a lock."""
    found: dict[str, Any] = {} if data is None else parse_json(data, SCHEMA, what=str(path), remedy=REMEDY)
    return found


def read(path: Path) -> dict[str, Any]:
    """The lock; {} where nobody ever took it. Raises FileError where it is damaged."""
    return parse(path, content(path))


def swap(path: Path, seen: bytes | None, wanted: Mapping[str, Any]) -> bool:
    """Write the lock `wanted` if its file still holds the bytes `seen`; whether it did. Of several callers one wins."""
    data = json.dumps(wanted, indent=1).encode() + b"\n"
    with guarded(path):
        if content(path) != seen:
            return False
        if seen is not None:
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
    """Be the only process that changes the lock file `path`."""
    handle = os.open(path.with_name(f".{path.name}.guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _flock(handle, path)
        yield
    finally:
        os.close(handle)  # which gives it back


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
                f"{path} is being changed by another process since {PATIENCE:g} seconds: end that process, or wait"
            )
        time.sleep(0.01)
