"""Loose images and videos through a run that makes an image of an image: `rostro generate translate=`.

A file of any size is resized to the scale that the network knows, its sides to multiples that the network
takes; what comes out is brought back to the size of the file, upright. Nothing is written before all places
are known to be free. Videos: `translate_video.py`.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from data_shards.batch import pixels_of
from data_shards.errors import UserError
from data_shards.files import read_bytes, write_bytes
from data_shards.images import normalize
from data_shards.images.pixels import Rejected, reason
from data_shards.images.placed import resize_exactly
from data_shards.sources.video_frames import check_reader, is_video
from hpc.generator import Translator
from hpc.inference.loose import LARGEST, find_images
from hpc.inference.predictor import Predictor, device
from hpc.inference.translate_video import MOVING, write_video

JPEGS = (".jpg", ".jpeg", ".jfif")
STILL = (
    *JPEGS,
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
)  # that are written; other images become PNG
MOST = 1 << 23  # pixels at which a network looks at a time: more would exhaust the memory
Progress = Callable[[str, Any], Iterable[Any]]


@dataclass(frozen=True)
class Piece:
    """A file, and where what is made of it goes."""

    source: Path
    target: Path
    name: str  # of the source, below the folder that was given

    @property
    def moves(self) -> bool:
        return is_video(self.name)


@dataclass
class Translated:
    """What was written, and which files could not be read: name, reason."""

    images: int = 0
    videos: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)


class Worker:
    """A translator for images of any size, which are looked at with a shorter side of about `side` pixels."""

    def __init__(self, translator: Translator, side: int) -> None:
        self.translator, self.side = translator, side

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width at which the network sees an image. Raises Rejected for a long one."""
        multiple, scale = self.translator.multiple, self.side / min(height, width)
        least = -(-self.translator.least // multiple)
        tall, wide = (max(least, round(scale * each / multiple)) * multiple for each in (height, width))
        if tall * wide > MOST:
            raise Rejected(
                f"{width} x {height} pixels would be {wide} x {tall} for the network, which are too many: "
                "give a smaller size="
            )
        return tall, wide

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Translate images uint8 [n, h, w, 3]: as many of the same size. Raises Rejected."""
        tall, wide = self.working_size(*images.shape[1:3])
        block = MOST // (tall * wide)
        parts = [self._made(images[low : low + block], tall, wide) for low in range(0, len(images), block)]
        return np.concatenate(parts)

    @torch.inference_mode()
    def _made(self, images: np.ndarray, tall: int, wide: int) -> np.ndarray:
        height, width = images.shape[1:3]
        seen = np.stack([resize_exactly(image, (wide, tall)) for image in images])
        tensor = torch.from_numpy(seen).to(device()).permute(0, 3, 1, 2)
        made = pixels_of(self.translator(tensor.float().div_(127.5).sub_(1.0)))
        return np.stack([resize_exactly(image, (width, height)) for image in made])


def open_worker(model: Predictor, *, direction: str = "", size: int = 0) -> Worker:
    """Return what translates by a run; size: of the shorter side (0 = data.size of the run).

    UserError where its task translates nothing, or for a direction that it does not know.
    """
    translator = model.task.translator(model.nets, direction=direction)
    if translator is None:
        raise UserError(
            f"{model.run}: task {model.config.task['name']} makes no image of an image: use a run of one "
            "that does, such as task=pix2pix"
        )
    return Worker(translator.to(device()).eval(), size or model.config.data.size)


def pieces_of(place: Path, out: Path, *, overwrite: bool) -> list[Piece]:
    """Return the files of `place` and where they go below `out`, or to it. UserError if they cannot."""
    if place.is_dir() and out.is_dir() and out.resolve() == place.resolve():
        raise UserError(f"out={out} is the folder of the originals: give another one")
    folder, files = find_images(place, but=(out,), key="translate", kinds="an image, a video or a folder")
    if place.is_dir():
        pieces = _of_folder(folder, files, out, overwrite=overwrite)
    else:
        name = files[0]
        target = out if _is_file(out, name) else out / _target_name(name)
        if target.is_dir():
            raise UserError(f"{target} is a folder: give the name of a file")
        if target.exists() and target.resolve() == place.resolve():
            raise UserError(f"out={out} is the original itself: give another place")
        if target.exists() and not overwrite:
            raise UserError(f"{target} exists already: give another place, or add overwrite=true")
        pieces = [Piece(place, target, name)]
    if video := next((piece for piece in pieces if piece.moves), None):
        check_reader(str(video.source))
    return pieces


def _of_folder(folder: Path, files: Sequence[str], out: Path, *, overwrite: bool) -> list[Piece]:
    if out.suffix.lower() in (*STILL, *MOVING) and not out.is_dir():
        raise UserError(f"out={out}: a folder becomes a folder: type out=FOLDER")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is not a folder: give another one")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"out={out} holds files already: give another folder, or add overwrite=true")
    pieces = [Piece(folder / file, out / _target_name(file), file) for file in files]
    first: dict[Path, str] = {}
    for piece in pieces:
        if piece.target in first:
            raise UserError(
                f"{first[piece.target]} and {piece.name} would both become {piece.target}: rename one of them"
            )
        first[piece.target] = piece.name
    return pieces


def _is_file(out: Path, name: str) -> bool:
    """Return whether `out` names the file that `name` becomes, not the folder for it. UserError if unfit."""
    allowed = MOVING if is_video(name) else STILL
    if out.is_dir() or out.suffix.lower() not in (*STILL, *MOVING):
        if out.exists() and not out.is_dir():
            raise UserError(f"out={out} is not a folder: give another one")
        return False
    if out.suffix.lower() not in allowed:
        kinds = ", ".join(allowed)
        raise UserError(
            f"out={out}: {name} does not become a file of that kind: use one of {kinds}, or a folder"
        )
    return True


def _target_name(name: str) -> str:
    """Return the name of what is made of a file: its own, but for an ending that is not written."""
    stem, suffix = os.path.splitext(name)
    moves = is_video(name)
    if suffix.lower() in (MOVING if moves else STILL):
        return name
    return stem + (MOVING[0] if moves else ".png")


def write_translated(
    worker: Worker, pieces: Sequence[Piece], *, progress: Progress = lambda text, steps: steps
) -> Translated:
    """Write what is made of each file: images, then videos. UserError where a place cannot be written."""
    done = Translated()
    for piece in progress("translating", [piece for piece in pieces if not piece.moves]):
        try:
            image = worker(_read(piece.source)[None])[0]
            _write(piece.target, encoded(image, piece.target.suffix.lower()))
            done.images += 1
        except Rejected as error:
            done.rejected.append((piece.name, str(error)))
    for piece in (piece for piece in pieces if piece.moves):
        _make_folder(piece.target)
        try:
            write_video(worker, piece.source, piece.target, progress=progress)
            done.videos += 1
        except (OSError, Rejected) as error:
            done.rejected.append((piece.name, str(error)))
    return done


def _read(path: Path) -> np.ndarray:
    """Return a file as uint8 [h, w, 3] RGB, upright. Raises Rejected."""
    try:
        data = read_bytes(path, limit=LARGEST)
    except UserError as error:
        raise Rejected(str(error).split(": ", 1)[0]) from None
    image = normalize.pixels(data)
    return image if image.shape[2] == 3 else image.repeat(3, axis=2)


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """Return an image uint8 [h, w, 3] as a file of one of STILL. Raises Rejected for a size that it lacks."""
    if suffix in JPEGS:
        return normalize.encode(image)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []  # above 100: without loss
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise Rejected(reason(error)) from None
    if not done:
        raise Rejected(f"{suffix} takes no image of {image.shape[1]} x {image.shape[0]} pixels")
    return data.tobytes()


def _write(path: Path, data: bytes) -> None:
    _make_folder(path)
    try:
        write_bytes(path, data)
    except OSError as error:
        raise _unwritable(path, error) from None


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror or error}: give a folder with space that you may write")
