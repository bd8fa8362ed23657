"""What an autoencoder makes of loose images: a folder of them, or one picture beside the originals.

Files are read as `rostro predict` reads them (`loose.py`). `rostro generate reconstruct=`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import pixels_of
from data_shards.errors import UserError
from data_shards.files import write_bytes
from data_shards.sources.video_frames import is_video
from hpc.data import views
from hpc.generator import Autoencoder, Generator
from hpc.inference.generate import BLOCK, FOLDER, check_pixels
from hpc.inference.loose import LooseBlocks, find_images
from hpc.inference.predictor import Predictor, device
from hpc.monitor.projector import grid, png

Progress = Callable[[str, Any], Iterable[Any]]


@dataclass
class Reconstructed:
    """What was read and what was not."""

    images: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)  # file, reason


def check_encodes(model: Predictor, generator: Generator, word: str) -> Autoencoder:
    """Return the generator if it also finds latents of images, else UserError; word: what asked for it."""
    if not isinstance(generator, Autoencoder):
        raise UserError(
            f"{word}: task {model.config.task['name']} of {model.run} finds no latents of images: use a run "
            "of one that does, such as task=vae"
        )
    return generator


def find(place: Path, out: Path) -> tuple[Path, list[str]]:
    """Return the folder of `place` and its image files; those below `out` and videos are left out."""
    folder, files = find_images(place, but=(out,), key="reconstruct", kinds="an image or a folder")
    still = [file for file in files if not is_video(file)]
    if not still:
        raise UserError(f"reconstruct={place} holds videos alone: give images")
    return folder, still


def write_reconstructions(
    model: Predictor,
    coder: Autoencoder,
    folder: Path,
    files: Sequence[str],
    out: Path,
    *,
    progress: Progress = lambda text, steps: steps,
) -> Reconstructed:
    """Write what is made of each file: to the folder `out`, or each below its original to `out`, a PNG."""
    if out.suffix:
        check_pixels(2 * len(files), coder.side, f"out={out}", FOLDER)
    done, names, pairs = Reconstructed(), _png_names(files), []
    for block in progress("reconstructing", _blocks(model, folder, files)):
        done.rejected += block.rejected
        done.images += len(block.files)
        made = reconstructed(coder, block.images)
        if out.suffix:
            pairs.append(np.concatenate([block.images, made], 1))
        else:
            for file, image in zip(block.files, made, strict=True):
                path = out / names[file]
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, png(image))
    if pairs and done.images:
        both = torch.from_numpy(np.concatenate(pairs)).permute(0, 3, 1, 2)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, png(grid(both, gap=2)))
    return done


def reconstructed(coder: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Return what is made of images uint8 [n, side, side, 3], as many of the same kind."""
    parts = [
        pixels_of(coder(encoded(coder, images[low : low + BLOCK]))) for low in range(0, len(images), BLOCK)
    ]
    return np.concatenate([np.zeros((0, coder.side, coder.side, 3), np.uint8), *parts])


@torch.inference_mode()
def encoded(coder: Autoencoder, images: np.ndarray) -> Tensor:
    """Return the latents [n, d] of images uint8 [n, side, side, 3]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device()).permute(0, 3, 1, 2)
    return coder.encode(tensor.float().div_(127.5).sub_(1.0))


def _blocks(model: Predictor, folder: Path, files: Sequence[str]) -> LooseBlocks:
    view = views.evaluation(model.config, model.config.data.size)
    threads = len(os.sched_getaffinity(0))
    return LooseBlocks(folder, files, view=view, block=BLOCK, threads=threads, exact=True)


def _png_names(files: Sequence[str]) -> dict[str, str]:
    """Return the name of what is made of each file: `a.jpg` -> `a.png`, or `a.jpg.png` beside an `a.webp`."""
    stems = Counter(os.path.splitext(file)[0] for file in files)
    return {
        file: f"{stem if stems[stem] == 1 else file}.png"
        for file in files
        for stem in [os.path.splitext(file)[0]]
    }
