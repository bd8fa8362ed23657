"""Images one after another as a file: GIF, or a video by PyAV (the extra `video`), by the file's ending.

What a run has kept at each evaluation (`hpc/monitor/sample_files.py`) becomes its growth: `rostro generate
movie=`.
"""

import importlib.util
import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_shards.errors import UserError
from data_shards.files import write_bytes
from hpc.inference.video_stream import add_stream
from hpc.monitor.sample_files import FOLDER

ENDINGS = (".gif", ".mp4")
SHOWN = "generated"  # the name of images from latents that stay the same
LEAST = 256  # pixels of a side of a video: smaller images are enlarged, since it halves the colours
LARGEST = 1 << 29  # pixels of a saved image, and of a GIF's images together
MOST = 10_000  # of these


def check_writer(path: Path) -> None:
    """Raise UserError where a video is to be written and PyAV is not installed."""
    if path.suffix == ".mp4" and importlib.util.find_spec("av") is None:
        raise UserError(f"{path}: PyAV writes videos: type pip install 'rostro[video]', or give FILE.gif")


def write_movie(path: Path, frames: Iterable[np.ndarray], *, rate: int) -> None:
    """Write images uint8 [h, w, 3] of one size, `rate` of them a second; a GIF begins again at its end."""
    data = _gif(frames, rate) if path.suffix == ".gif" else _video(frames, rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)


def saved_grids(run: Path, name: str = SHOWN) -> list[Path]:
    """Return the grids that a run has saved of a name, in the order of their clocks. UserError for none."""
    folder = run / FOLDER / Path(name).name
    found = [path for path in sorted(folder.glob("*.png")) if path.stem.isdigit()]
    if not found:
        known = ", ".join(sorted(path.name for path in folder.parent.glob("*") if path.is_dir()))
        raise UserError(
            f"movie: {folder} holds no grid, which a training saves at each evaluation"
            + (
                f": there are those of {known}: type grids=NAME"
                if known
                else ": use a run of a task that generates images"
            )
        )
    if len(found) > MOST:
        raise UserError(f"movie: {folder} holds {len(found):,} grids: move all but {MOST:,} of them away")
    return found


def growth_size(path: Path, grids: Sequence[Path]) -> tuple[int, int]:
    """Return the height and width of the largest of PNG files, which are to become the movie `path`.

    Raises UserError for a file that is not an image, and for a GIF that memory does not take.
    """
    height, width = (max(sides) for sides in zip(*map(_size, grids), strict=True))
    if path.suffix == ".gif" and len(grids) * height * width > LARGEST:
        raise UserError(
            f"movie={path}: {len(grids):,} grids of {width} x {height} pixels are too many for a GIF: give "
            "FILE.mp4"
        )
    return height, width


def write_growth(path: Path, grids: Sequence[Path], size: tuple[int, int], *, rate: int) -> None:
    """Write PNG files one after another, smaller ones enlarged to `size`, height and width, by nearest."""
    height, width = size

    def frames() -> Iterator[np.ndarray]:
        for grid in grids:
            with Image.open(grid) as image:
                pixels = np.asarray(image.convert("RGB"))
            yield cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)

    write_movie(path, frames(), rate=rate)


def _size(path: Path) -> tuple[int, int]:
    """Return height and width of a PNG file that decodes."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            width, height = image.size
            if width * height > LARGEST:
                raise UserError(f"{path}: {width} x {height} pixels are too many: move it away")
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a whole PNG ({error}): move it away") from None
    return height, width


def _gif(frames: Iterable[np.ndarray], rate: int) -> bytes:
    first, *rest = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    first.save(
        buffer, format="GIF", save_all=True, append_images=rest, duration=1000 // rate, loop=0, optimize=False
    )
    return buffer.getvalue()


def _video(frames: Iterable[np.ndarray], rate: int) -> bytes:
    """Return an MP4."""
    import av

    buffer, stream = io.BytesIO(), None
    with av.open(buffer, "w", format="mp4") as video:
        for image in map(_even, frames):
            stream = stream or add_stream(video, image.shape[1], image.shape[0], Fraction(rate))
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if stream:
            video.mux(stream.encode())
    return buffer.getvalue()


def _even(frame: np.ndarray) -> np.ndarray:
    """Enlarge a small image by a whole factor, and repeat its last row or column where a side is odd."""
    factor = max(1, -(-LEAST // max(frame.shape[:2])))
    large = frame.repeat(factor, 0).repeat(factor, 1)
    pad = [(0, side % 2) for side in large.shape[:2]]
    return np.ascontiguousarray(np.pad(large, [*pad, (0, 0)], mode="edge"))
