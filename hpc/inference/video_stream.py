"""The stream of a video that is written, by PyAV (the extra `video`): H.264, or what stands in for it."""

from fractions import Fraction
from typing import Any

ENCODERS = {"libx264": {"crf": "16"}, "mpeg4": {"qmin": "2", "qmax": "3"}}  # with options, the best one first


def add_stream(video: Any, width: int, height: int, rate: Fraction) -> Any:
    """Add a stream to an open container: H.264, or MPEG-4 where PyAV has no encoder for that.

    width, height: pixels; rate: frames a second
    """
    import av

    name = next(name for name in ENCODERS if name in av.codecs_available)
    stream = video.add_stream(name, rate=rate, options=ENCODERS[name])
    odd = width % 2 or height % 2  # H.264 halves its colours on even sides only
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv444p" if odd and name == "libx264" else "yuv420p"
    return stream
