"""A video through a network, frame by frame, to a video of the same size and rate, without sound. By PyAV."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_shards.images.pixels import reason
from data_shards.sources.video_frames import decoded, length_and_rate
from hpc.inference.video_stream import add_stream

MOVING = (".mp4", ".mov", ".mkv")  # that are written; other videos become the first of them
BLOCK = 8  # frames at a time


class FrameBlocks:
    """All frames of a video, upright, as an iterable of uint8 [<= BLOCK, h, w, 3] RGB of one size.

    Raises OSError where it does not decode.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.path, self.total = path, total

    def __len__(self) -> int:
        return -(-self.total // BLOCK)

    def __iter__(self) -> Iterator[np.ndarray]:
        block: list[np.ndarray] = []
        size: tuple[int, int] | None = None
        for _, frame in decoded(str(self.path), self.total):
            size = size or (frame.shape[1], frame.shape[0])
            if (frame.shape[1], frame.shape[0]) != size:  # a stream may change it
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            block.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            if len(block) == BLOCK:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)


def write_video(
    make: Callable[[np.ndarray], np.ndarray],
    source: Path,
    target: Path,
    *,
    progress: Callable[[str, Any], Iterable[Any]] = lambda text, steps: steps,
) -> None:
    """Write what `make` returns for blocks of frames uint8 [n, h, w, 3], of the same shape.

    Raises OSError where the video does not decode; nothing is left of a part then.
    """
    import av

    total, rate = length_and_rate(str(source))
    draft = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    try:
        with av.open(str(draft), "w") as video:
            stream = None
            for block in progress(f"translating {source.name}", FrameBlocks(source, total)):
                made = make(block)
                stream = stream or add_stream(video, made.shape[2], made.shape[1], rate)
                for frame in made:
                    video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if stream is None:
                raise OSError("holds no frames")
            video.mux(stream.encode())
        draft.replace(target)
    except (av.FFmpegError, ValueError) as error:
        raise OSError(reason(error)) from None
    finally:
        draft.unlink(missing_ok=True)
