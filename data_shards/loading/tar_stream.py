"""The samples of a tar that can only be read from front to back, by webdataset's openers: all or an error.

webdataset's own reader ends without an error wherever the next header is damaged, and so also where a server
or a copy has cut the tar between two members.
"""

import tarfile
from collections.abc import Iterator
from typing import Any

from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys


def samples(url: str) -> Iterator[dict[str, Any]]:
    """Each sample as {"__key__": key, extension: bytes}. Raises what gopen, tarfile, group_by_keys raise."""
    yield from group_by_keys(_members(url))


def _members(url: str) -> Iterator[dict[str, Any]]:
    # No `with`: closing a pipe waits for its command, and a caller that leaves early must not wait for it.
    stream = gopen(url)
    with tarfile.open(fileobj=stream, mode="r|*") as tar:  # does not close the stream
        while (member := tar.next()) is not None:
            if member.isreg():
                file = tar.extractfile(member)
                assert file is not None
                yield {"fname": member.name, "data": file.read(), "__url__": url}
            tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
        _check_end(tar)
    stream.close()  # raises for a command that failed


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless two blocks of zeros end the tar (tarfile reads one) and only zeros follow."""
    end = tar.fileobj
    assert end is not None
    if end.tell() < tar.offset + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it was cut: the blocks that end a tar are missing")
    while block := end.read(1 << 16):  # to the end, or the command that feeds the pipe would fail
        if any(block):
            raise tarfile.ReadError(f"data follow byte {tar.offset}: it is damaged, or several tars in one")
