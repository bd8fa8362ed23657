"""Samples of a tar that can only be read from front to back, through webdataset's openers: all of them or an error.

webdataset's own reader ends without an error wherever the next header is damaged, so also where a server or a copy
cut the tar between two members.
"""

import tarfile
from collections.abc import Iterator
from typing import Any

from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys


def samples(url: str) -> Iterator[dict[str, Any]]:
    """{"__key__", extension: bytes} of each sample. Raises what gopen, tarfile and group_by_keys raise."""
    yield from group_by_keys(_members(url))


def _members(url: str) -> Iterator[dict[str, Any]]:
    # No `with`: closing a pipe waits for its command, and one that hangs must not hold who leaves early.
    stream = gopen(url)
    with tarfile.open(fileobj=stream, mode="r|*") as tar:  # closes nothing but itself
        while (member := tar.next()) is not None:
            if member.isreg():
                file = tar.extractfile(member)
                assert file is not None
                yield {"fname": member.name, "data": file.read(), "__url__": url}
            tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
        _check_end(tar)
    stream.close()  # raises for a command that failed


def _check_end(tar: tarfile.TarFile) -> None:
    """A tar ends in two blocks of zeros, of which tarfile has read one, and nothing but zeros may follow."""
    end = tar.fileobj
    assert end is not None
    if end.tell() < tar.offset + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it was cut: the blocks that end a tar are missing")
    while block := end.read(1 << 16):  # to the end, or the command before the pipe could not end well
        if any(block):
            raise tarfile.ReadError(f"data follow byte {tar.offset}: it is damaged, or several tars in one")
