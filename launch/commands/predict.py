"""`rostro predict`: what the network of a run says of loose images or of a packed set."""

import sys
from pathlib import Path

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "in": Option("", "an image, a video, a folder of them, or a packed set", placeholder="FILE|FOLDER|SET"),
    "out": Option("", "folder to write", placeholder="FOLDER"),
    "format": Option("csv", "of the predictions: one line an image", choices=("csv", "json")),
    "draw": Option(False, "true: also out/drawn, each image with its prediction"),
    "explain": Option(
        False, "true: also out/explained, each image with what in it speaks for each answer (Grad-CAM)"
    ),
    "checkpoint": Option("best", "best | last | a clock"),
    "weights": Option(
        "auto", "ema | raw | auto: the average where the run kept one", choices=("ema", "raw", "auto")
    ),
    "exact": Option(
        False,
        "true: decode large JPEGs whole, as evaluation does; else one of four times the network's size or "
        "more is reduced while it is decoded, which is three times as fast",
    ),
    "frames": Option(16, "of each video, evenly spaced over it; all where it has fewer", least=1),
    "threads": Option(0, "that decode images (0 = one a core)", least=0, most=1024),
}
HELP = f"""
usage: rostro predict RUN in=FILE|FOLDER|SET out=FOLDER [key=value ...]

Writes what the network of a run says of each image to out/predictions.csv (or .json): the centre square of
an image of any format is what it sees, as in evaluation. Folders are walked with all that is below them.
A frame of a video is named after its number: clip.mp4#120. Files that are not usable are skipped and listed
in out/rejected.csv: exit code 1.

{option_lines(OPTIONS, {"RUN": "a run directory"})}

example: rostro predict runs/age in=photos out=ages draw=true
"""


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run", "in", "out"))
    from data_shards.errors import UserError
    from hpc.inference.predict import predict
    from hpc.inference.predictor import load_run
    from launch.terminal import track

    place, out = Path(getattr(keys, "in")), Path(keys.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is not a folder: give another one")
    if not place.exists():
        raise UserError(f"in={place} does not exist: give an image, a video, a folder or a packed set")
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    options = {
        "format": keys.format,
        "draw": keys.draw,
        "explain": keys.explain,
        "threads": keys.threads,
        "exact": keys.exact,
        "frames": keys.frames,
    }
    done = predict(model, place, out, progress=track, **options)
    print(f"{done.file}: {done.images:,} images by {model.name}")
    for note in done.notes:
        print(note)
    if done.rejected:
        (name, reason), count = done.rejected[0], len(done.rejected)
        what = "1 file is not a usable image" if count == 1 else f"{count:,} files are not usable images"
        print(
            f"error: {what}, such as {name} ({reason}): {out / 'rejected.csv'} lists them",
            file=sys.stderr,
        )
    return 1 if done.rejected else 0
