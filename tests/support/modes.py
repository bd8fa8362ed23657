"""Modes of what commands write: those that the umask says, on files and on folders."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED = 0o002  # the umask of a group that shares its folders


@contextmanager
def shared_umask() -> Iterator[None]:
    """Processes that begin in here leave to their group what they write."""
    before = os.umask(SHARED)
    try:
        yield
    finally:
        os.umask(before)


def odd(folder: Path) -> dict[str, str]:
    """Path -> mode of everything below `folder`, links apart, that has not the mode of SHARED."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if not path.is_symlink()}
    return {
        str(path): oct(mode) for path, mode in modes.items() if mode != (0o775 if path.is_dir() else 0o664)
    }
