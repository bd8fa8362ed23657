"""Images of latents by a trained run: a folder, a grid, a walk between latents, mixed styles.

The image of a latent depends on the seed and its number alone: neither on how many there are, nor on blocks.
Nothing is written before all that was asked for is known to be possible. `rostro generate`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import Batch, pixels_of
from data_shards.errors import UserError
from data_shards.files import write_bytes
from hpc.generator import Generator
from hpc.inference.movie import write_movie
from hpc.inference.predictor import Predictor, device
from hpc.monitor.projector import grid, png

BLOCK = 16  # images at a time
LARGEST = 1 << 28  # pixels of a picture of many images
RATE = 25  # frames a second
FOLDER = "give out= a folder"  # where images are too many for one picture
Progress = Callable[[str, Any], Iterable[Any]]


def open_generator(
    model: Predictor, *, level: int | None = None, truncation: float | None = None
) -> Generator:
    """Return what makes the images of a run. UserError where its task makes none, or for unfit options."""
    found = model.task.generator(model.nets, level=level, truncation=truncation)
    if found is None:
        raise UserError(
            f"{model.run}: task {model.config.task['name']} makes no images of latents: use a run of "
            "one that does, such as task=stylegan"
        )
    return found.to(device()).eval()


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise UserError where something would be lost, or cannot be written."""
    if path.suffix and path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    if not path.suffix and path.exists() and not path.is_dir():
        raise UserError(f"{path} is not a folder: give another one")
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not overwrite:
        raise UserError(f"{path} exists already: give another place, or add overwrite=true")


def check_apart(places: Mapping[str, Path]) -> None:
    """Raise UserError where two words name one file, or a file and a place below it; word -> its place."""
    for (word, path), (other, place) in permutations(places.items(), 2):
        one, two = path.resolve(), place.resolve()
        if one == two or (path.suffix and one in two.parents):
            raise UserError(f"{word}={path} and {other}={place} are in each other's way: give another place")


def images_of(generator: Generator, numbers: range, seed: int) -> Iterator[np.ndarray]:
    """Yield the images of latents by their numbers, uint8 [n, side, side, 3], BLOCK at a time."""
    for low in range(0, len(numbers), BLOCK):
        with torch.inference_mode():
            yield pixels_of(generator.at(_batch(numbers[low : low + BLOCK], seed)))


def write_folder(
    generator: Generator, folder: Path, *, n: int, seed: int, progress: Progress = lambda text, steps: steps
) -> None:
    """Write an image a file: `folder`/000000.png, named by the number of its latent."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for low in progress("generating", range(0, n, BLOCK)):
        for image in next(images_of(generator, range(low, min(low + BLOCK, n)), seed)):
            write_bytes(folder / f"{number:06}.png", png(image))
            number += 1


def write_grid(
    generator: Generator, path: Path, *, n: int, seed: int, progress: Progress = lambda text, steps: steps
) -> None:
    """Write `n` images as one picture, row by row."""
    check_grid(generator, n)
    starts = progress("generating", range(0, n, BLOCK))
    parts = [next(images_of(generator, range(low, min(low + BLOCK, n)), seed)) for low in starts]
    _write(path, png(grid(_channels_first(np.concatenate(parts)), gap=2)))


def write_walk(
    generator: Generator,
    path: Path,
    *,
    stops: int,
    frames: int,
    seed: int,
    progress: Progress = lambda text, steps: steps,
) -> None:
    """Write a GIF or a video that passes the latents 0 to `stops` - 1 and comes back to the first."""
    check_walk(generator, path, frames)
    keys = _batch(range(stops), seed).latents("shown", generator.latents)
    still = generator.noise_at(_batch(range(1), seed))
    places = np.arange(frames) * stops / frames

    def pictures() -> Iterator[np.ndarray]:
        for low in progress("generating", range(0, frames, BLOCK)):
            part = places[low : low + BLOCK]
            latents = torch.stack([_between(keys, place) for place in part]).to(device())
            noise = None if still is None else still.expand(len(latents), -1)
            with torch.inference_mode():
                made = pixels_of(generator(latents, noise))
            yield from made

    write_movie(path, pictures(), rate=RATE)


def write_matrix(
    generator: Generator, path: Path, *, rows: int, columns: int, crossover: int, seed: int
) -> None:
    """Write a matrix: each image has the coarse styles of its column's and the fine styles of its row's.

    Above and on the left are the images of which the styles are. Layers below `crossover` are coarse. Karras
    et al. 2019, figure 3.
    """
    check_matrix(generator, rows, columns, crossover)
    batch = _batch(range(columns + rows), seed)
    latents, noise = batch.latents("shown", generator.latents), generator.noise_at(batch)
    side, own_noise = generator.side, None if noise is None else noise[:columns]
    with torch.inference_mode():
        own = pixels_of(generator(latents, noise))
        lines = [np.concatenate([np.full((1, side, side, 3), 255, np.uint8), own[:columns]])]
        for row in range(columns, columns + rows):
            fine = latents[row].expand(columns, -1)
            mixed = pixels_of(generator.mixed(latents[:columns], fine, crossover, own_noise))
            lines.append(np.concatenate([own[row : row + 1], mixed]))
    picture = np.concatenate([np.concatenate(list(line), 1) for line in lines], 0)
    _write(path, png(picture))


def check_grid(generator: Generator, n: int) -> None:
    """Raise UserError where one picture of `n` images would be too large."""
    check_pixels(n, generator.side, f"n={n}", FOLDER)


def check_walk(generator: Generator, path: Path, frames: int) -> None:
    """Raise UserError where a GIF would be too large: unlike a video, it is kept in memory."""
    if path.suffix == ".gif":
        remedy = "type fewer, or interpolate=FILE.mp4"
        check_pixels(frames, generator.side, f"frames={frames}", remedy, what="GIF")


def check_matrix(generator: Generator, rows: int, columns: int, crossover: int) -> None:
    """Raise UserError where a matrix would be too large, there are no styles, or none would be mixed."""
    if not generator.layers:
        raise UserError("mix: this network has no styles to mix: use a run of task=stylegan")
    if not 0 < crossover < generator.layers:
        raise UserError(
            f"crossover={crossover}: images of {generator.side} pixels have {generator.layers} layers of "
            f"styles: type 1 to {generator.layers - 1}"
        )
    words = f"rows={rows} columns={columns}"
    check_pixels((rows + 1) * (columns + 1), generator.side, words, "type smaller numbers")


def check_pixels(count: int, side: int, words: str, remedy: str, *, what: str = "picture") -> None:
    """Raise UserError where a picture of `count` images would be larger than memory takes.

    words: that ask for it, as they are typed; remedy: what to type instead
    """
    if count * side**2 > LARGEST:
        raise UserError(
            f"{words}: {count:,} images of {side} pixels are too many for one {what}, {LARGEST // side**2:,} "
            f"fit: {remedy}"
        )


def slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Return the latent [d] at `share` of the way on the arc from one to the other (Shoemake 1985).

    The length goes linearly from one's to the other's; where they are parallel, so does all.
    """
    lengths = one.norm(), other.norm()
    cosine = (one @ other / (lengths[0] * lengths[1]).clamp(min=1e-12)).clamp(-1, 1)
    angle = float(torch.acos(cosine))
    if math.sin(angle) < 1e-6:
        return torch.lerp(one, other, share)
    parts = [math.sin((1 - share) * angle), math.sin(share * angle)]
    arc = (parts[0] * one / lengths[0] + parts[1] * other / lengths[1]) / math.sin(angle)
    return arc * torch.lerp(*lengths, share)


def _between(keys: Tensor, place: float) -> Tensor:
    """Return the latent at `place` of a closed way through `keys` [n, d], which is at key k where it is k."""
    number = int(place)
    following = keys[(number + 1) % len(keys)]
    return slerp(keys[number % len(keys)], following, place - number)


def _batch(numbers: range, seed: int) -> Batch:
    positions = torch.arange(numbers.start, numbers.stop)
    return Batch.of_positions(positions, seed).prepare(device())


def _channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
