"""`rostro generate`: images of latents by a run that makes them, such as one of task=stylegan or task=vae."""

import sys
from pathlib import Path
from typing import Any

from launch.options.key_value import convert, parse, refuse_unused
from launch.options.option import Option, option_lines

OPTIONS = {
    "out": Option("", "folder of PNG files, or one file .png for a grid of all", placeholder="DIR|FILE.png"),
    "n": Option(64, "images of out=", least=1, most=1_000_000),
    "seed": Option(0, "of the latents and the noise: with it, an image has its number", least=0),
    "truncation": Option(
        None, "of styles: 1 = as trained, 0 = the mean image (default: the task's)", placeholder="0..1"
    ),
    "level": Option(None, "of a network that grew, 0 = 4 pixels (default: the last)", placeholder="NUMBER"),
    "interpolate": Option(
        "", "a GIF or video that passes `stops` latents and comes back", placeholder="FILE.gif|FILE.mp4"
    ),
    "stops": Option(5, "latents that interpolate= passes", least=2, most=1000),
    "frames": Option(125, "images of interpolate=, 25 a second", least=2, most=10_000),
    "mix": Option(
        "",
        "a matrix of images with coarse styles of the one above and fine styles of the one on the left",
        placeholder="FILE.png",
    ),
    "rows": Option(4, "of mix=; faces of attribute=", least=1, most=100),
    "columns": Option(6, "of mix=", least=1, most=100),
    "crossover": Option(4, "first layer of fine styles; a level has two layers", least=1),
    "overwrite": Option(False, "true: write over what is there"),
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option(
        "auto", "ema | raw | auto: the average where the run kept one", choices=("ema", "raw", "auto")
    ),
}
GROWTH = {
    "movie": Option(
        "", "the grids that the training saved, one after another", placeholder="FILE.gif|FILE.mp4"
    ),
    "grids": Option("generated", "of movie=: a name in RUN/samples, such as ab of task=cyclegan"),
    "rate": Option(10, "grids of movie= a second", least=1, most=50),
}
ENCODED = {
    "reconstruct": Option(
        "",
        "what the network makes of images, to the folder out=, or each below its original to one file .png",
        placeholder="IMAGE|FOLDER",
    ),
    "attribute": Option(
        "",
        "of data=, such as Smiling: a row a face, with less and more of it (default of out=: NAME.png)",
        placeholder="NAME",
    ),
    "strength": Option(
        "-3..3", "of attribute=: times the difference between the means of faces with and without it"
    ),
    "steps": Option(7, "strengths of attribute=, from the first to the last", least=2, most=100),
    "data": Option(
        "",
        "packed set of attribute=, or the folder of its splits (default: the run's own)",
        placeholder="SET",
    ),
}
TRANSLATED = {
    "translate": Option(
        "",
        "an image, a folder or a video, of any size: what it becomes goes to out=, a folder, where it "
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
out=, interpolate=, mix= or movie=, or several of them. What exists is not written over.

{option_lines(OPTIONS, {"RUN": "a run directory"})}

How its images grew in the training, which needs no weights:

{option_lines(GROWTH)}

A run that also finds the latents of images, such as one of task=vae; out= is then what becomes of images:

{option_lines(ENCODED)}

A run that makes an image of an image, such as one of task=pix2pix:

{option_lines(TRANSLATED)}

example: rostro generate runs/stylegan n=64 seed=0 truncation=0.7 out=faces.png
         rostro generate runs/stylegan interpolate=walk.gif mix=styles.png movie=growth.mp4
         rostro generate runs/vae reconstruct=photos out=reconstructed
         rostro generate runs/vae attribute=Smiling strength=-2..2 data=shards/celeba out=smiling.png
         rostro generate runs/pix2pix translate=photos out=translated
"""
OPTIONS |= GROWTH | ENCODED | TRANSLATED
MOVING = (".gif", ".mp4")
# The files that these options name
WRITTEN = {"interpolate": MOVING, "mix": (".png",), "movie": MOVING}
# What out= may be where these words say what it is made of, instead of latents
MADE_OF = {"reconstruct": ("", ".png"), "attribute": (".png",)}
LATENTS = ("out", "interpolate", "mix")
NETWORK = (*LATENTS, *MADE_OF)
# What an option belongs to; `out` is that of latents here
NEEDS: dict[str, tuple[str, ...]] = {
    "n": ("out",),
    "seed": (*LATENTS, "attribute"),
    **dict.fromkeys(("truncation", "level"), NETWORK),
    **dict.fromkeys(("stops", "frames"), ("interpolate",)),
    "rows": ("mix", "attribute"),
    **dict.fromkeys(("columns", "crossover"), ("mix",)),
    **dict.fromkeys(("checkpoint", "weights"), (*NETWORK, "translate")),
    **dict.fromkeys(GROWTH.keys() - {"movie"}, ("movie",)),
    **dict.fromkeys(ENCODED.keys() - MADE_OF.keys(), ("attribute",)),
    **dict.fromkeys(TRANSLATED.keys() - {"translate"}, ("translate",)),
}


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run",))
    refuse_unused(argv, OPTIONS, NEEDS, _used(keys))
    if keys.translate:
        return _translate(keys)
    places = _places(keys)
    options = {
        "truncation": _number("truncation", keys.truncation, 0.0, most=1),
        "level": _number("level", keys.level, 0, most=8),
    }
    from hpc.inference import generate, movie
    from hpc.runs.run_dir import RunDir

    generate.check_apart(places)
    for path in places.values():
        generate.check_free(path, overwrite=keys.overwrite)
        movie.check_writer(path)
    growth = places.pop("movie", None)
    grids = movie.saved_grids(RunDir.open(keys.run).path, keys.grids) if growth else []
    size = movie.growth_size(growth, grids) if growth else (0, 0)
    status = _by_network(keys, places, options) if places else 0
    if growth:
        movie.write_growth(growth, grids, size, rate=keys.rate)
        print(f"{growth}: {len(grids):,} grids of {keys.run}")
    return status


def _used(keys: Any) -> set[str]:
    """Return the words that say what is made; `out` is among them where it, or nothing, asks for latents."""
    words = {word for word in (*WRITTEN, *MADE_OF, "translate") if getattr(keys, word)}
    of_images = words & {*MADE_OF, "translate"}
    return words | {"out"} if not words or (keys.out and not of_images) else words


def _by_network(keys: Any, places: dict[str, Path], options: dict[str, Any]) -> int:
    """Write what needs the weights of the run, once all of it is known to be possible."""
    from hpc.inference import generate
    from hpc.inference.predictor import load_run
    from launch.terminal import track

    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    generator = generate.open_generator(model, **options)
    sizes = {"rows": keys.rows, "columns": keys.columns, "crossover": keys.crossover}
    if "mix" in places:
        generate.check_matrix(generator, **sizes)
    if "interpolate" in places:
        generate.check_walk(generator, places["interpolate"], keys.frames)
    if "out" in places and places["out"].suffix and not _made_of(keys):
        generate.check_grid(generator, keys.n)
    status = 0
    for word in _made_of(keys):  # which checks the rest before it writes
        status = MAKERS[word](model, generator, keys, places.pop("out"))
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
    return status


def _places(keys: Any) -> dict[str, Path]:
    """Return what is written, by the word that names it. UserError for none, and for other kinds of files."""
    from data_shards.errors import UserError

    made_of = _made_of(keys)
    if len(made_of) > 1:
        raise UserError(f"{' and '.join(f'{word}=' for word in made_of)} both name what out= is: give one")
    places = {word: Path(value) for word in ("out", *WRITTEN) if (value := getattr(keys, word))}
    if keys.attribute:
        places.setdefault("out", Path(f"{keys.attribute.replace('/', '_')}.png"))
    if made_of and "out" not in places:
        raise UserError(f"out is missing: {made_of[0]}= needs it: type out=DIR or out=FILE.png")
    if not places:
        raise UserError(
            "out is missing: type out=DIR, out=FILE.png, interpolate=FILE.gif, mix=FILE.png or movie=FILE.gif"
        )
    for word, path in places.items():
        allowed = WRITTEN.get(word, MADE_OF[made_of[0]] if made_of else ("", ".png"))
        if path.suffix not in allowed:
            names = " or ".join(f"{word}=NAME{suffix}" for suffix in allowed)
            raise UserError(f"{word}={path} does not end as it must: type {names}")
    return places


def _made_of(keys: Any) -> list[str]:
    """Return the words that say what out= is made of, instead of latents."""
    return [word for word in MADE_OF if getattr(keys, word)]


def _reconstruct(model: Any, generator: Any, keys: Any, out: Path) -> int:
    """Write what the network makes of images; return 1 where some of them could not be read."""
    from hpc.inference import reconstruct
    from launch.terminal import track

    coder = reconstruct.check_encodes(model, generator, "reconstruct")
    folder, files = reconstruct.find(Path(keys.reconstruct), out)
    done = reconstruct.write_reconstructions(model, coder, folder, files, out, progress=track)
    if done.images:
        print(f"{out}: {done.images:,} images of {coder.side} pixels, by {model.name}")
    for file, reason in done.rejected:
        print(f"error: {file} is not a usable image: {reason}", file=sys.stderr)
    return 1 if done.rejected else 0


def _attribute(model: Any, generator: Any, keys: Any, out: Path) -> int:
    """Write faces with less and more of an attribute."""
    from hpc.inference import attribute, reconstruct
    from launch.terminal import track

    strengths = attribute.strengths_of(keys.strength, keys.steps)
    coder = reconstruct.check_encodes(model, generator, "attribute")
    found = attribute.open_attribute(model, keys.attribute, keys.data)
    sizes = {"rows": keys.rows, "strengths": strengths, "seed": keys.seed}
    attribute.write_attribute(model, coder, found, out, **sizes, progress=track)
    print(f"{out}: {found.name} by {len(found.having):,} images with and {len(found.lacking):,} without it")
    return 0


MAKERS = {"reconstruct": _reconstruct, "attribute": _attribute}


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

    if other := next((word for word in (*WRITTEN, *MADE_OF) if getattr(keys, word)), ""):
        raise UserError(f"{other}= and translate= are made of different things: give one of them")
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
