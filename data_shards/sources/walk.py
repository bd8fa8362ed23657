"""All files below a folder, each of them once: what would pack an image twice is named, and left out.

A link to another place in the same folder, or back above it, a second link to a folder elsewhere, a hard or
bind link: each of them gives a person the images of another one. Links to images elsewhere are followed.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class WalkedFile(NamedTuple):
    """A file, or a folder that cannot be walked; path: relative to the root."""

    path: str
    num_bytes: int = 0
    unfit: str = ""  # why it must not be packed ("" = it may)


class Walk:
    """The walk below one root. Call `below` for its folders in turn: the walk remembers what it has met."""

    def __init__(self, root: str) -> None:
        self.root, self._real = root, os.path.realpath(root)
        self._above = {_key(os.stat(place)) for place in (self._real, *map(str, Path(self._real).parents))}
        self._folders: dict[tuple[bool, object], str] = {}
        self._files: dict[int, str] = {}

    def below(self, folder: str) -> Iterator[WalkedFile]:
        """All files below root/folder ("" = root), sorted. A folder that cannot be listed comes by itself."""
        why = self._alias(folder, os.path.islink(os.path.join(self.root, folder))) if folder else ""
        if why:
            yield WalkedFile(folder, 0, why)
            return
        pending = [folder]
        while pending:
            parent = pending.pop()
            try:
                with os.scandir(os.path.join(self.root, parent)) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError:
                yield WalkedFile(parent)
                continue
            folders = []
            for entry in entries:
                path = os.path.join(parent, entry.name)
                if not is_folder(entry):
                    yield self._file(path, entry)
                elif why := self._alias(path, entry.is_symlink()):
                    yield WalkedFile(path, 0, why)
                else:
                    folders.append(path)
            pending.extend(reversed(folders))

    def _alias(self, path: str, is_link: bool) -> str:
        """Why a folder is not walked ("" = it is)."""
        try:
            key = _key(os.stat(os.path.join(self.root, path)))
        except OSError:
            return ""  # listing it fails, and so reports it
        if key in self._above:
            return "leads back to the folder of the source, or above it"
        if is_link and (helper := helper_of(path)):
            return f"is a link in {helper}, a folder of some program"
        if is_link and (inside := self._inside(path)):
            return f"is a link to {inside}, which has its own place"
        first = self._folders.setdefault((helper_of(path) != "", key), path)
        return f"is the same folder as {first}" if first != path else ""

    def _file(self, path: str, entry: os.DirEntry[str]) -> WalkedFile:
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere
            return WalkedFile(path)
        if helper := helper_of(path):
            return WalkedFile(
                path, status.st_size, f"lies in {helper}, a folder of some program, not of people"
            )
        if not stat.S_ISREG(status.st_mode):
            return WalkedFile(path, status.st_size)
        if entry.is_symlink() and "/" in (inside := self._inside(path)):
            return WalkedFile(path, status.st_size, f"is a link to {inside}, which has its own place")
        # Size and time too: not every network file system numbers its files.
        key = hash((*_key(status), status.st_size, status.st_mtime_ns))
        first = self._files.setdefault(key, path) if status.st_ino else path
        return WalkedFile(path, status.st_size, f"is the same file as {first}" if first != path else "")

    def _inside(self, path: str) -> str:
        """Where a link leads, relative to the root ("" = outside of it, or where nothing is packed from)."""
        real = os.path.realpath(os.path.join(self.root, path))
        inside = os.path.relpath(real, self._real) if real.startswith(f"{self._real.rstrip('/')}/") else ""
        return "" if helper_of(f"{inside}/" if os.path.isdir(real) else inside) else inside


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a folder that can be reached, unlike a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_helper(folder: str) -> bool:
    """Whether a folder of this name contains what a program keeps beside images, such as copies of them.

    Examples are `.ipynb_checkpoints`, `.thumbnails`, and `@eaDir` of Synology's disk stations.
    """
    return folder.startswith(".") or folder == "@eaDir"


def helper_of(path: str) -> str:
    """The helper folder in which a file is ("" = none)."""
    return next(filter(is_helper, os.path.dirname(path).split("/")), "")
