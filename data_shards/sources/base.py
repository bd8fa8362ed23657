"""What a data set on disk looks like to the packer: a `Source` lists samples and reads their bytes.

`registry.py` says which sources exist. A source is listed in the parent process and read in the workers, so
it must pickle.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from data_shards.sources.walk import Walk, WalkedFile, is_folder, is_helper

LARGEST_FILE = 1 << 29  # bytes; a larger file is not an image, and reading it would exhaust the memory


class Sample(NamedTuple):
    """One image. Its key in the shards is made of `identity`, or else its path, and `stem`."""

    path: str  # unique; relative to the source's folder, or any name that `read` understands
    identity: str  # the person, or the class ("" = the source does not know who it is)
    stem: str  # name within the identity, without suffix
    num_bytes: int = 0  # size of the file, by which shards are cut (0 = unknown)
    labels: tuple[Any, ...] = ()  # in the order of Source.fields: a number each, or an array of its shape
    # Either x, y, width, height in pixels of the upright image, or the side of its centre square: in pixels,
    # or up to 1 as a share of the shorter side (None = keep the whole image).
    crop: tuple[int, int, int, int] | float | None = None
    unfit: str = ""  # the reason in rejected.csv if this file must not be packed ("" = it may)
    # What must not be divided among sets, such as a clip, a person, or all photographs of an event ("" = the
    # identity, or this image alone where that is unknown): a class is never that.
    group: str = ""
    split: str = ""  # the set in which the data set's authors put this sample ("" = `rostro pack` decides)
    mended: tuple[str, ...] = ()  # what the source had to correct in its labels; the manifest counts it
    extra: bytes = b""  # what `read` needs beside the path, such as polygons: it goes to the workers


class Source(Protocol):
    """A data set that can be packed."""

    name: str  # of the data set, and of the packed set when the user gives none
    licence: str  # one line for the manifest
    # Labels beside `identity`, images and masks; "i4" and "f4" are short for a Field of kind value.
    fields: Mapping[str, Field | str]
    cls: str | None  # the label that is the member `cls` of each sample: identity, or a field of kind class
    # True: the images of a person lie together on the disk, which P x K needs. False: all images are shuffled
    # by the hash of their paths, and no person has two of them.
    cluster: bool

    def samples(self) -> Iterable[Sample]:
        """All samples, in the same order at every call. Files that are missing are listed too."""
        ...

    def read(self, sample: Sample) -> bytes | Mapping[str, bytes | np.ndarray]:
        """The encoded image, in any format that `images/normalize.py` knows. Raises OSError.

        Or {"image": that, name: each image or mask of `fields` that the sample has}; a mask is a PNG of 8-bit
        grey, or uint8 [h, w].
        """
        ...


class FileSource:
    """The base of sources whose samples are files under one folder, root/<identity>/**/<file>."""

    name = ""
    licence = ""
    fields: Mapping[str, Field | str] = {}
    cls: str | None = "identity"
    cluster = True

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
    """The bytes of a regular file of at most LARGEST_FILE, else OSError; it never waits on a pipe."""
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


def netpbm(image: np.ndarray) -> bytes:
    """The file of uint8 [h, w, 1] (PGM) or [h, w, 3] RGB (PPM), for a source that makes its images."""
    height, width, channels = image.shape
    return b"P%d %d %d 255\n" % (5 if channels == 1 else 6, width, height) + image.tobytes()


def walk(root: str) -> Iterator[WalkedFile]:
    """All files below root, for a source of another layout: path from root, size, why it is unfit."""
    return Walk(root).below("")


def folders_of(root: str | os.PathLike[str]) -> list[str]:
    """Names of the folders directly below root, sorted. Raises UserError if there are none."""
    try:
        names = sorted(
            entry.name for entry in os.scandir(root) if is_folder(entry) and not is_helper(entry.name)
        )
    except OSError as error:
        raise UserError(f"src={root}: {error.strerror}; give the folder that holds the images") from None
    if not names:
        raise UserError(f"src={root}: holds no folders; give the folder that has one folder an identity")
    return names


def stem(name: str) -> str:
    """The file name without its suffix; `.jpg` alone keeps its name."""
    return os.path.splitext(name)[0]
