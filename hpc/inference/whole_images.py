"""Images at their own size for detectors: of files, a packed set, all frames of videos, or a camera.

`loose.py` has the ones at the size of a network. Each yields blocks of named images; a video yields all of
its frames, those before the place where it ends too early as well.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from data_shards.errors import UserError
from data_shards.files import read_bytes
from data_shards.images.normalize import pixels
from data_shards.images.pixels import Rejected
from data_shards.loading.reader import Reader
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.video_frames import decoded, length_and_rate
from hpc.inference.loose import LARGEST

BLOCK = 8  # images at a time
RATE = Fraction(25)  # frames a second of a camera that states none
CAMERA = "camera"  # `in=camera`, or `in=camera:1` for the second one


@dataclass
class Whole:
    """A block of images."""

    names: list[str]
    images: list[np.ndarray]  # uint8 [h, w, 3] RGB
    rejected: list[tuple[str, str]] = field(default_factory=list)  # file, reason
    video: str = ""  # the file that these frames are of
    rate: Fraction = RATE  # frames a second


class Files:
    """Image files in order, decoded by threads."""

    def __init__(self, folder: Path, files: Sequence[str], *, threads: int) -> None:
        self.folder, self.files, self.threads = folder, files, threads

    def __len__(self) -> int:
        return -(-len(self.files) // BLOCK)

    def __iter__(self) -> Iterator[Whole]:
        with ThreadPoolExecutor(self.threads, "decode") as pool:
            for start in range(0, len(self.files), BLOCK):
                names = list(self.files[start : start + BLOCK])
                decoded_ = list(pool.map(self._decode, names))
                block = Whole([], [])
                for name, image in zip(names, decoded_, strict=True):
                    if isinstance(image, str):
                        block.rejected.append((name, image))
                    else:
                        block.names.append(name)
                        block.images.append(image)
                yield block

    def _decode(self, name: str) -> np.ndarray | str:
        try:
            return _colour(pixels(read_bytes(self.folder / name, limit=LARGEST)))
        except Rejected as error:
            return str(error) or "not a usable image"
        except UserError as error:
            return str(error).split(": ", 1)[0]


class Members:
    """The images of a packed set, named as in its shards."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return -(-len(self.shards) // BLOCK)

    def __iter__(self) -> Iterator[Whole]:
        reader = Reader(self.shards)
        try:
            for start in range(0, len(self.shards), BLOCK):
                ids = np.arange(start, min(start + BLOCK, len(self.shards)))
                blobs = reader.read(ids)
                names = [self.shards.member(row) for row in ids.tolist()]
                yield Whole(names, [_colour(pixels(bytes(blob))) for blob in blobs])
        finally:
            reader.close()


class Frames:
    """All frames of a video, named `clip.mp4#0`, `clip.mp4#1` ...; all of the size of the first one."""

    def __init__(self, folder: Path, file: str) -> None:
        self.folder, self.file = folder, file

    def __len__(self) -> int:
        try:
            return -(-length_and_rate(str(self.folder / self.file))[0] // BLOCK)
        except OSError:
            return 1

    def __iter__(self) -> Iterator[Whole]:
        path, fault = str(self.folder / self.file), ""
        block = Whole([], [], video=self.file)
        try:
            total, block.rate = length_and_rate(path)
            size: tuple[int, int] | None = None
            done = 0
            for number, frame in decoded(path, total):
                size = size or (frame.shape[1], frame.shape[0])
                if (frame.shape[1], frame.shape[0]) != size:  # a stream may change it
                    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                block.names.append(f"{self.file}#{number}")
                block.images.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
                done += 1
                if len(block.names) == BLOCK:
                    yield block
                    block = Whole([], [], video=self.file, rate=block.rate)
            if done < (stated := max(total, _stated(path, block.rate))):
                fault = f"ends after {done} of {stated} frames"
        except OSError as error:
            fault = str(error)
        block.rejected = [(self.file, fault)] if fault else []
        if block.names or fault:
            yield block


class Camera:
    """Frames of a camera until `frames` of them, or Ctrl-C."""

    def __init__(self, number: int, frames: int) -> None:
        self.frames = frames
        self._device = cv2.VideoCapture(number)
        if not self._device.isOpened():
            raise UserError(f"in={CAMERA}:{number}: there is no such camera: give another number, or a file")

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[Whole]:
        rate = Fraction(self._device.get(cv2.CAP_PROP_FPS) or RATE).limit_denominator(1000)
        try:
            for number, frame in enumerate(islice(self._read(), self.frames)):
                image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                yield Whole([f"{CAMERA}.mp4#{number}"], [image], video=f"{CAMERA}.mp4", rate=rate)
        finally:
            self._device.release()

    def _read(self) -> Iterator[np.ndarray]:
        try:
            while True:
                good, frame = self._device.read()
                if not good:
                    return
                yield frame
        except KeyboardInterrupt:
            return


def _stated(path: str, rate: Fraction) -> int:
    """Return how many frames a video says that it has, 0 where it does not, or not clearly."""
    import av

    with av.open(path) as video:
        frames = int(video.streams.video[0].frames)
        alone = len(video.streams) == 1  # or else the duration may be that of the sound
        seconds = (video.duration or 0) / av.time_base
    return frames or (int(seconds * rate) - 1 if alone else 0)


def camera(place: str, frames: int) -> Camera | None:
    """Return the camera that `in=` names, None where it names a place."""
    word, _, number = place.partition(":")
    if word != CAMERA or os.path.exists(place):
        return None
    if number and not (number.isascii() and number.isdigit()):
        raise UserError(f"in={place}: {number} is not the number of a camera: type in={CAMERA}:0")
    return Camera(int(number or 0), frames)


def _colour(image: np.ndarray) -> np.ndarray:
    return image if image.shape[2] == 3 else image.repeat(3, axis=2)
