"""`rostro generate`: images of latents by a run that makes them, such as one of task=stylegan."""

import sys
from pathlib import Path
from typing import Any

from launch.options.key_value import convert, parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "out": Option("", "folder of PNG files, or one file .png for a grid of all", placeholder="DIR|FILE.png"),
    "n": Option(64, "images of out=", least=1, most=1_000_000),
    "seed": Option(0, "of the latents and the noise: with it, an image has its number", least=0),
    "truncation": Option(
        None, "of styles: 1 = as trained, 0 = the mean image (default: the task's)", placeholder="0..1"
    ),
    "level": Option(None, "of a network that grew, 0 = 4 pixels (default: the last)", placeholder="NUMBER"),
    "interpolate": Option("", "a GIF that passes `stops` latents and comes back", placeholder="FILE.gif"),
    "stops": Option(5, "latents that interpolate= passes", least=2, most=1000),
    "frames": Option(125, "images of interpolate=, 25 a second", least=2, most=10_000),
    "mix": Option(
        "",
        "a matrix of images with coarse styles of the one above and fine styles of the one on the left",
        placeholder="FILE.png",
    ),
    "rows": Option(4, "of mix=", least=1, most=100),
    "columns": Option(6, "of mix=", least=1, most=100),
    "crossover": Option(4, "first layer of fine styles; a level has two layers", least=1),
    "overwrite": Option(False, "true: write over what is there"),
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option(
        "auto", "ema | raw | auto: the average where the run kept one", choices=("ema", "raw", "auto")
    ),
}
TRANSLATED = {
    "translate": Option(
        "",
        "an image, a folder or a video, of any size: what it becomes goes to out=, a folder, where it\n"
        "keeps its name, or a file",
        placeholder="FILE|FOLDER",
    ),
    "direction": Option("", "of translate=, for a run that knows two: ab or ba", placeholder="WAY"),
    "size": Option(
        0, "of translate=: pixels of the shorter side that the network sees (0 = data.size)", least=0
    ),
}
HELP = f"""
usage: rostro generate RUN out=DIR|FILE.png [key=value ...]

Makes images of latents, which are counted: the image of a number and a seed is always the same one. Give
out=, interpolate= or mix=, or several of them. What exists is not written over.

{option_lines(OPTIONS, {"RUN": "a run directory"})}

A run that makes an image of an image, such as one of task=pix2pix:

{option_lines(TRANSLATED)}

example: rostro generate runs/stylegan n=64 seed=0 truncation=0.7 out=faces.png
         rostro generate runs/stylegan interpolate=walk.gif mix=styles.png
         rostro generate runs/pix2pix translate=photos out=translated
"""
OPTIONS |= TRANSLATED
WRITTEN = {"interpolate": ".gif", "mix": ".png"}  # the files that these options name


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run",))
    if keys.translate or keys.direction or keys.size:
        return _translate(keys)
    places = _places(keys)
    truncation = _number("truncation", keys.truncation, 0.0, most=1)
    level = _number("level", keys.level, 0, most=8)
    from hpc.inference import generate
    from hpc.inference.predictor import load_run
    from launch.terminal import track

    for path in places.values():
        generate.check_free(path, overwrite=keys.overwrite)
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    generator = generate.open_generator(model, level=level, truncation=truncation)
    if "mix" in places:
        generate.check_mixing(generator, keys.crossover)
    sizes = {"rows": keys.rows, "columns": keys.columns, "crossover": keys.crossover}
    for word, path in places.items():
        if word == "mix":
            generate.write_matrix(generator, path, **sizes, seed=keys.seed)
        elif word == "interpolate":
            steps = {"stops": keys.stops, "frames": keys.frames}
            generate.write_walk(generator, path, **steps, seed=keys.seed, progress=track)
        else:
            write = generate.write_grid if path.suffix else generate.write_folder
            write(generator, path, n=keys.n, seed=keys.seed, progress=track)
        print(f"{path}: {generator.side} pixels, by {model.name}")
    return 0


def _places(keys: Any) -> dict[str, Path]:
    """Return what is written, by the word that names it. UserError for none, and for other kinds of files."""
    from data_shards.errors import UserError

    places = {word: Path(value) for word in ("out", *WRITTEN) if (value := getattr(keys, word))}
    if not places:
        raise UserError("out is missing: type out=DIR, out=FILE.png, interpolate=FILE.gif or mix=FILE.png")
    for word, path in places.items():
        allowed = (WRITTEN[word],) if word in WRITTEN else ("", ".png")
        if path.suffix not in allowed:
            names = " or ".join(f"{word}=NAME{suffix}" for suffix in allowed)
            raise UserError(f"{word}={path} does not end as it must: type {names}")
    return places


def _number(key: str, text: str | None, example: float, *, most: int) -> Any:
    """Read an option that need not be given, from 0 to `most`; its type is that of `example`."""
    from data_shards.errors import UserError

    if text is None:
        return None
    value = convert(key, text, example)
    if fault := Option(example, "", least=0, most=most).fault(key, value):
        raise UserError(fault)
    return value


def _translate(keys: Any) -> int:
    """Write what the network makes of images and videos; return 1 where some of them could not be read."""
    from data_shards.errors import UserError
    from hpc.inference import translate
    from hpc.inference.predictor import load_run
    from launch.terminal import track

    if not keys.translate:
        word = "direction" if keys.direction else "size"
        raise UserError(f"{word}= belongs to translate=: add translate=FILE, or leave it out")
    if other := next((word for word in WRITTEN if getattr(keys, word)), ""):
        raise UserError(f"{other}= makes images of latents, translate= of images: give one of them")
    if not keys.out:
        raise UserError("out is missing: translate= needs it: type out=FOLDER, or out= a file for one file")
    out = Path(keys.out)
    pieces = translate.pieces_of(Path(keys.translate), out, overwrite=keys.overwrite)
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    worker = translate.open_worker(model, direction=keys.direction, size=keys.size)
    done = translate.write_translated(worker, pieces, progress=track)
    if done.images or done.videos:
        print(f"{out}: {done.images:,} images and {done.videos:,} videos by {model.name}")
    for file, reason in done.rejected:
        print(f"error: {file} is left out: {reason}", file=sys.stderr)
    return 1 if done.rejected else 0
