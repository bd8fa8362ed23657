"""Frames of a video file, evenly spaced or all of them, by PyAV (the extra `video`).

The frames of one video are asked for one after another, so the last video of a process is kept decoded.
"""

import importlib.util
import os
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from data_shards.errors import UserError
from data_shards.images.pixels import LARGEST, reason

ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def is_video(path: str) -> bool:
    """Whether a file is a video, by its name."""
    return os.path.splitext(path)[1].lower() in ENDINGS


def check_reader(path: str) -> None:
    """Raise UserError where there is a video but no PyAV."""
    if importlib.util.find_spec("av") is None:
        raise UserError(f"{path}: is a video, which PyAV reads: type pip install 'rostro[video]'")


def places(total: int, count: int) -> list[int]:
    """Numbers of `count` frames in the middles of equal parts of a video of `total`; all if it has fewer."""
    if total <= count:
        return list(range(total))
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def frame(path: str, number: int, count: int) -> bytes:
    """Frame `number` of the `count` of a video, as PNG. Raises OSError if it has fewer or does not decode."""
    frames, fault = _frames(path, count)
    if number >= len(frames):
        raise OSError(fault or f"the video has only {len(frames)} frames of frames={count}")
    return frames[number]


@lru_cache(maxsize=1)
def _frames(path: str, count: int) -> tuple[list[bytes], str]:
    """(the frames, why there are no more of them)."""
    frames: list[bytes] = []
    try:
        for _, image in decoded(path, count):
            frames.append(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    except OSError as error:
        return frames, str(error)
    return frames, ""


def decoded(path: str, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and upright image uint8 [h, w, 3] BGR of `count` evenly spaced frames, or of all.

    Raises OSError where the video ends too early or does not decode.
    """
    import av

    done = 0
    try:
        with av.open(path) as video:
            total = _count(video)
        wanted = places(total, count)
        with av.open(path) as video:
            for number, each in enumerate(video.decode(video=0)):
                if done == len(wanted):
                    break
                if number == wanted[done]:
                    yield number, _upright(each.to_ndarray(format="bgr24"), each.rotation)
                    done += 1
    except (av.FFmpegError, ValueError) as error:
        raise OSError(reason(error)) from None


def length_and_rate(path: str) -> tuple[int, Fraction]:
    """Return the number of frames of a video, and how many it shows a second.

    Raises OSError where it does not open, is too large, or states no rate.
    """
    import av

    try:
        with av.open(path) as video:
            total = _count(video)
            rate = video.streams.video[0].average_rate or video.streams.video[0].guessed_rate
    except (av.FFmpegError, ValueError) as error:
        raise OSError(reason(error)) from None
    if not rate or not total:
        raise OSError("states no frame rate" if total else "holds no frames")
    return total, Fraction(rate)


def _count(video: Any) -> int:
    """Return the number of frames of an open video, from its packets. Raises OSError for one too large."""
    if not video.streams.video:
        raise OSError("has no video stream")
    stream = video.streams.video[0]
    if stream.width * stream.height > LARGEST:
        raise OSError(f"{stream.width} x {stream.height} pixels are too many")
    return sum(packet.size > 0 for packet in video.demux(stream))


def _upright(image: np.ndarray, degrees: int) -> np.ndarray:
    """Turn a frame by its metadata."""
    return np.ascontiguousarray(np.rot90(image, round(degrees / 90)))
