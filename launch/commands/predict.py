"""`rostro predict`: what a run's network, or a public detector, says of images, videos or a packed set."""

import sys
from pathlib import Path
from typing import Any

from launch.options.key_value import parse, typed
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
    "frames": Option(
        16,
        "of each video, evenly spaced over it; all where it has fewer. A detector takes all, and so many of "
        "a camera",
        least=1,
    ),
    "threads": Option(0, "that decode images (0 = one a core)", least=0, most=1024),
}
DETECTORS = {  # the words of runs that find objects
    "score": Option(0.25, "from which an object counts (default: as evaluation chose it)", least=0, most=1),
    "layout": Option(
        "",
        "yolo: also out/labels, a text file an image; wider: out/event/name.txt for `rostro score wider`",
        choices=("yolo", "wider"),
        placeholder="yolo|wider",
    ),
    "crops": Option(False, "true: also out/crops/CLASS, each object with some margin"),
    "tta": Option(
        "none",
        "looks at each image that are merged: mirrored, at 3/4 and 5/4 of the size, or both",
        choices=("none", "flip", "scales", "both"),
    ),
}
OPTIONS |= DETECTORS | {
    "detector": Option(
        "",
        "a public detector in the place of a run: CenterFace finds faces (extra centerface)",
        choices=("centerface",),
        placeholder="centerface",
    )
}
MASKS = {  # the words of runs that predict a class for each pixel
    "cutouts": Option(False, "true: also out/cutouts, what the mask shows, as PNG with transparency"),
    "background": Option("00ff00", "colour behind the cut-outs of a video, RRGGBB"),
}
OPTIONS |= MASKS
PLAIN = {name: option for name, option in OPTIONS.items() if name not in (*DETECTORS, *MASKS, "detector")}
HELP = f"""
usage: rostro predict RUN in=FILE|FOLDER|SET out=FOLDER [key=value ...]
       rostro predict detector=centerface in=FILE|FOLDER|SET out=FOLDER [key=value ...]

Writes what the network of a run says of each image to out/predictions.csv (or .json): the centre square of
an image of any format is what it sees, as in evaluation. Folders are walked with all that is below them.
A frame of a video is named after its number: clip.mp4#120. Files that are not usable are skipped and listed
in out/rejected.csv: exit code 1.

{option_lines(PLAIN, {"RUN": "a run directory"})}

A run that finds objects (task=yolov5) looks at whole images and all frames of a video, and says where in a
file its boxes are; draw=true writes a video with boxes too. in=camera is a camera: type frames=, since
Ctrl-C discards what was found.

{option_lines({name: OPTIONS[name] for name in (*DETECTORS, "detector")})}

A run that predicts masks (task=unet_persons) writes one of the size of each image to out/masks, and a video
of masks for a video; draw=true writes them over the images.

{option_lines(MASKS)}

example: rostro predict runs/age in=photos out=ages draw=true
         rostro predict runs/yolov5x clip.mp4 out=found draw=true crops=true
         rostro predict detector=centerface WIDER_val/images out=centerface layout=wider
"""


def main(argv: list[str]) -> int:
    public = any(word.startswith("detector=") for word in argv)
    places = ("in",) if public else ("run", "in")
    keys = parse(argv, OPTIONS, positional=places, required=(*places, "out"))
    from data_shards.errors import UserError
    from hpc.inference.predictor import load_run

    out = Path(keys.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is not a folder: give another one")
    if public:
        from hpc.inference.centerface import CenterFace

        words = ("checkpoint", "weights", "tta", "explain", "exact", *MASKS)
        _refuse(argv, words, f"detector={keys.detector}")
        return _detect(CenterFace(threads=keys.threads), keys, argv)
    model = load_run(keys.run, checkpoint=keys.checkpoint, weights=keys.weights)
    if model.task.whole_image:
        from hpc.inference.detector import RunDetector
        from hpc.inference.names import learn_chosen, learn_names

        _refuse(argv, ("explain", "exact", *MASKS), f"task {model.config.task['name']}")
        learn_names(model)
        notes = learn_chosen(model)
        detector = RunDetector(model, keys.tta)
        detector.notes = notes
        return _detect(detector, keys, argv)
    _refuse(argv, tuple(DETECTORS), f"task {model.config.task['name']}, which finds no objects")
    if model.task.by_pixel:
        _refuse(argv, ("explain", "exact"), f"task {model.config.task['name']}")
        return _segment(model, keys, argv)
    _refuse(argv, tuple(MASKS), f"task {model.config.task['name']}, which predicts no masks")
    return _predict(model, keys)


def _predict(model: Any, keys: Any) -> int:
    from data_shards.errors import UserError
    from hpc.inference.predict import predict
    from launch.terminal import track

    place = Path(getattr(keys, "in"))
    if not place.exists():
        raise UserError(f"in={place} does not exist: give an image, a video, a folder or a packed set")
    options = {
        "format": keys.format,
        "draw": keys.draw,
        "explain": keys.explain,
        "threads": keys.threads,
        "exact": keys.exact,
        "frames": keys.frames,
    }
    return _said(predict(model, place, Path(keys.out), progress=track, **options), model.name)


def _detect(detector: Any, keys: Any, argv: list[str]) -> int:
    from hpc.inference.detect import Wanted, detect
    from launch.terminal import track

    options = typed(argv, OPTIONS)
    score = keys.score if "score" in options else None
    wanted = Wanted(keys.format, keys.draw, keys.crops, keys.layout, score)
    frames = keys.frames if "frames" in options else None
    place, out = getattr(keys, "in"), Path(keys.out)
    done = detect(detector, place, out, wanted, threads=keys.threads, frames=frames, progress=track)
    return _said(done, detector.name)


def _segment(model: Any, keys: Any, argv: list[str]) -> int:
    from data_shards.errors import UserError
    from hpc.inference.cutout import colour_of
    from hpc.inference.segment import Wanted, segment
    from launch.terminal import track

    options = typed(argv, OPTIONS)
    if "background" in options and not keys.cutouts:
        raise UserError("background= is the colour behind cut-outs: type cutouts=true too, or leave it out")
    wanted = Wanted(keys.format, keys.draw, keys.cutouts, colour_of(keys.background))
    frames = keys.frames if "frames" in options else None
    place, out = getattr(keys, "in"), Path(keys.out)
    done = segment(model, place, out, wanted, threads=keys.threads, frames=frames, progress=track)
    return _said(done, model.name)


def _refuse(argv: list[str], words: tuple[str, ...], what: str) -> None:
    """Raise UserError for a typed word that does nothing here."""
    from data_shards.errors import UserError

    for word in typed(argv, OPTIONS):
        if word in words:
            raise UserError(f"{word}= does not belong to {what}: leave it out")


def _said(done: Any, name: str) -> int:
    """Print what was written; return the exit code."""
    print(f"{done.file}: {done.images:,} images by {name}")
    for note in done.notes:
        print(note)
    if done.rejected:
        (file, reason), count = done.rejected[0], len(done.rejected)
        what = "1 file is not a usable image" if count == 1 else f"{count:,} files are not usable images"
        print(
            f"error: {what}, such as {file} ({reason}): {done.file.parent / 'rejected.csv'} lists them",
            file=sys.stderr,
        )
    return 1 if done.rejected else 0
