"""Small videos, written by PyAV."""

from pathlib import Path

import numpy as np


def write_video(path: Path, *, frames: int, width: int = 64) -> Path:
    """A video whose frame n is a plain grey of 8 n."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for number in range(frames):
            image = np.full((48, width, 3), 8 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                video.mux(packet)
        for packet in stream.encode():
            video.mux(packet)
    return path
