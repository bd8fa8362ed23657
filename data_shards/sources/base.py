"""What a data set on disk looks like to the packer: a `Source` lists samples and reads their bytes.

Which there are says `registry.py`. A source is listed in the parent process and read in the workers, so it must pickle.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from data_shards.errors import UserError
from data_shards.sources.walk import Found, Walk, is_folder, is_helper

LARGEST_FILE = 1 << 29  # bytes; a larger one is not a picture, and reading it would exhaust the memory


class Sample(NamedTuple):
    """One picture. `(identity, stem)` names it: its key in the shards is made of both."""

    path: str  # unique; relative to the source's folder, or any name that `read` understands
    identity: str  # the person, or the class
    stem: str  # name within the identity, without suffix
    num_bytes: int = 0  # size of the file as far as known: shards are cut by it; 0: unknown
    labels: tuple[float, ...] = ()  # in the order of Source.fields; -1: unknown
    # x, y, width, height in pixels of the upright picture; or the side of its centre square, up to 1 a share
    crop: tuple[int, int, int, int] | float | None = None
    unfit: str = ""  # why this file must not be packed; it is listed in rejected.csv


class Source(Protocol):
    name: str  # of the data set: names the set when the user gives none
    licence: str  # one line for the manifest
    fields: Mapping[str, str]  # label columns beside `identity`: {field: numpy dtype, i4 or f4}

    def samples(self) -> Iterable[Sample]:
        """All samples in any order, the same at every call. Files that are missing are listed too."""
        ...

    def read(self, sample: Sample) -> bytes:
        """The encoded picture (any format that `images/normalize.py` knows). Raises OSError."""
        ...


class FileSource:
    """Base of the sources whose samples are files under one folder, root/<identity>/**/<file>."""

    name = ""
    licence = ""
    fields: Mapping[str, str] = {}

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)

    def samples(self) -> Iterator[Sample]:
        walk = Walk(self.root)
        for entry in sorted(os.scandir(self.root), key=lambda entry: entry.name):
            if not is_folder(entry):
                yield Sample(entry.name, "", stem(entry.name), unfit="lies beside the identity folders")
                continue
            for path, num_bytes, unfit in walk.below(entry.name):
                sample = self.sample(entry.name, path, num_bytes)
                yield sample._replace(unfit=unfit) if unfit else sample

    def sample(self, identity: str, path: str, num_bytes: int) -> Sample:
        """The sample of one file, path relative to root."""
        return Sample(path, identity, stem(path[len(identity) + 1 :]), num_bytes)

    def read(self, sample: Sample) -> bytes:
        return read_file(os.path.join(self.root, sample.path))


def read_file(path: str) -> bytes:
    """Bytes of a regular file. Raises OSError; never waits on a pipe or device among the pictures."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if status.st_size > LARGEST_FILE:
            raise OSError(f"{status.st_size >> 20} MB are too many for a picture")
        data = os.read(fd, status.st_size)
        while more := os.read(fd, 1 << 20) if len(data) != status.st_size else b"":
            data += more
            if len(data) > LARGEST_FILE:
                raise OSError("it grows while it is read")
        return data
    finally:
        os.close(fd)


def walk(root: str) -> Iterator[Found]:
    """(path relative to root, size, why it must not be packed) of all files, for a source of its own layout."""
    return Walk(root).below("")


def folders_of(root: str | os.PathLike[str]) -> list[str]:
    """Names of the folders directly below root, sorted. Raises UserError if root is not a folder or has none."""
    try:
        names = sorted(
            entry.name for entry in os.scandir(root) if is_folder(entry) and not is_helper(entry.name)
        )
    except OSError as error:
        raise UserError(f"src={root}: {error.strerror}; give the folder that holds the pictures") from None
    if not names:
        raise UserError(f"src={root}: holds no folders; give the folder that has one folder an identity")
    return names


def stem(name: str) -> str:
    """File name without its suffix; `.jpg` alone keeps its name."""
    return os.path.splitext(name)[0]
