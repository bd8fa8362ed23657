"""A video of drawn frames, as `rostro predict` writes it: of the rate of its source, without sound. By PyAV.

It is written under another name and appears under its own once it is whole. Where its source ends early, the
frames before that place are a whole video of their own.
"""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from hpc.inference.translate_video import MOVING
from hpc.inference.video_stream import add_stream


class DrawnVideo:
    """The drawn frames of one video, below `folder`; without a frame nothing is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._target: Path | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "DrawnVideo":
        return self

    def add(self, file: str, rate: Fraction, image: np.ndarray) -> None:
        """Add a frame uint8 [h, w, 3] RGB of the video `file`; rate: frames a second.

        All frames have the size of the first one. Raises UserError where the video is there already.
        """
        import av

        if self._container is None:
            self._target = self._free(file)
            self._container = av.open(str(self._draft), "w")
            self._stream = add_stream(self._container, image.shape[1], image.shape[0], rate)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def _free(self, file: str) -> Path:
        target = self.folder / file
        if target.suffix.lower() not in MOVING:
            target = target.with_name(target.name + MOVING[0])
        if target.exists():
            raise UserError(f"{target} is there already: give another out=, or move it away")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @property
    def _draft(self) -> Path:
        assert self._target is not None
        return self._target.with_name(f".tmp-{os.getpid()}-{self._target.name}")

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._container is None:
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None and self._target is not None:
                self._draft.replace(self._target)
        finally:
            self._draft.unlink(missing_ok=True)
