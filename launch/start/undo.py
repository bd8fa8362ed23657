"""Undo what a start changes on disk before a job exists, if none comes to exist.

A new run leaves nothing, not even the folder of runs if it was the first; a resumed one is as it was before.
"""

import contextlib
import os
import shutil
import socket
from pathlib import Path

from data_shards.files import read_bytes, write_bytes
from hpc.runs.run_dir import RunDir


class NewFolders:
    """The folders on the way to `path` that do not exist yet, to be removed if they stay empty."""

    def __init__(self, path: Path) -> None:
        self._missing = [folder for folder in (path, *path.parents) if not folder.exists()]

    def remove(self) -> None:
        """Remove those that are empty."""
        for folder in self._missing:
            with contextlib.suppress(OSError):  # another run may be there by now
                folder.rmdir()


class NewRun:
    """A run directory that did not exist before."""

    def __init__(self, run: RunDir, folders: NewFolders) -> None:
        self._run, self._folders = run, folders

    def undo(self) -> None:
        """Remove the run, unless another process took it meanwhile."""
        if self._run.lock_file.exists() and _owner(self._run) != [socket.gethostname(), os.getpid()]:
            return
        shutil.rmtree(self._run.path, ignore_errors=True)
        self._folders.remove()


class OldRun:
    """A run directory as it is before it is resumed."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        files = (run.config_file, run.status_file, run.lock_file, run.starts_file, run.stop_file)
        self._files = {path: (read_bytes(path), path.stat()) if path.exists() else None for path in files}
        self._path, self._aside = run.path, set(run.path.glob("before-*"))
        self._folder = run.submitit
        self._calls = set(run.submitit.iterdir()) if run.submitit.exists() else None

    def undo(self) -> None:
        """Restore its files, unless another start has taken it meanwhile."""
        if self._is_of_another_start():
            return
        for aside in set(self._path.glob("before-*")) - self._aside:  # `from=0` of this start
            for path in aside.iterdir():
                os.replace(path, self._path / path.name)
            aside.rmdir()
        for path, before in self._files.items():
            if before is None:
                path.unlink(missing_ok=True)
                continue
            content, stat = before
            if path.exists() and read_bytes(path) == content:
                continue
            write_bytes(path, content)
            path.chmod(stat.st_mode & 0o777)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if self._folder.exists():
            for path in set(self._folder.iterdir()) - (self._calls or set()):
                path.unlink(missing_ok=True)
            if self._calls is None:
                self._folder.rmdir()

    def _is_of_another_start(self) -> bool:
        """Return whether another process has taken the lock since: the files then belong to its start."""
        before, lock = self._files[self._run.lock_file], self._run.lock_file
        if not lock.exists() or (before is not None and read_bytes(lock) == before[0]):
            return False
        return _owner(self._run) != [socket.gethostname(), os.getpid()]


def _owner(run: RunDir) -> list[object]:
    owner = run.ownership.read()
    return [owner.get("host"), owner.get("pid")]
