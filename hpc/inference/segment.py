"""Masks of images, videos and packed sets, by a run that predicts a class for each pixel: `rostro predict`.

Below out=: predictions.csv or .json, masks/, and where they are wanted drawn/ (masks over the images) and
cutouts/. An image gives PNG files of its own size; a video gives videos, in which masks are in colours and
cut-outs are over a plain background. What a network has not seen of an image is 255 in its mask.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_shards.files import write_bytes
from data_shards.images.masks import store_mask
from data_shards.sampling.view import still
from hpc.data import views
from hpc.inference import cutout
from hpc.inference.detect import parts_of
from hpc.inference.drawn_video import DrawnVideo
from hpc.inference.loose import lay_image
from hpc.inference.names import learn_names
from hpc.inference.predict import DRAWINGS, Predicted, RecordWriter, below, list_rejected, write_jpeg
from hpc.inference.predictor import Predictor
from hpc.inference.whole_images import Whole
from hpc.metrics.segmentation import at_own_size
from hpc.plots.masks import colours

MASKS, CUTOUTS = "masks", "cutouts"  # folders below out=


@dataclass(frozen=True)
class Wanted:
    """What is written beside records and masks. background: of the cut-outs of videos, RGB."""

    format: str = "csv"
    draw: bool = False
    cutouts: bool = False
    background: tuple[int, int, int] = (0, 255, 0)


def segment(
    model: Predictor,
    place: str,
    out: Path,
    wanted: Wanted,
    *,
    threads: int = 0,
    frames: int | None = None,
    progress: Callable[[str, Any], Iterable[Any]] = lambda text, blocks: blocks,
) -> Predicted:
    """Write the masks of what `place` names to `out`. Raises UserError.

    frames: of a camera (None = until Ctrl-C)
    """
    learn_names(model)
    threads = threads or len(os.sched_getaffinity(0))
    folders = (MASKS, DRAWINGS, CUTOUTS)
    parts = list(parts_of(place, [out / name for name in folders], threads, frames))
    out.mkdir(parents=True, exist_ok=True)
    done = Predicted(out / f"predictions.{wanted.format}")
    with RecordWriter(done.file, wanted.format) as records:
        for title, part in parts:
            with ExitStack() as stack:
                videos = {name: stack.enter_context(DrawnVideo(out / name)) for name in folders}
                for block in progress(title, part):
                    done.rejected += block.rejected
                    for name, image, mask in _found(model, block):
                        rendered = model.task.render(image, {model.task.by_pixel: mask})
                        records.write(name, rendered.record)
                        if block.video:
                            _add_frames(videos, block, image, mask, rendered.image, wanted)
                        else:
                            _write(out, name, image, mask, rendered.image, wanted)
                        done.images += 1
    list_rejected(out / "rejected.csv", done.rejected)
    return done


def masks_of(model: Predictor, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the mask uint8 [h, w] of each image uint8 [h, w, 3] RGB, at its own size."""
    size = model.config.data.size
    view = views.evaluation(model.config, size)
    widths, heights = (np.array([image.shape[axis] for image in images]) for axis in (1, 0))
    seen = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in zip(seen, images, strict=True):
        lay_image(row, image, view)
    placed = still(view, widths, heights).placed
    chances = model.predict(seen, placed)[model.task.by_pixel]
    return [
        at_own_size(each, (image.shape[1], image.shape[0]), placed.window(row))
        for row, (each, image) in enumerate(zip(chances, images, strict=True))
    ]


def _found(model: Predictor, block: Whole) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    masks = masks_of(model, block.images) if block.images else []
    yield from zip(block.names, block.images, masks, strict=True)


def _write(
    out: Path, name: str, image: np.ndarray, mask: np.ndarray, drawn: np.ndarray | None, wanted: Wanted
) -> None:
    write_bytes(below(out / MASKS / f"{name}.png"), store_mask(mask).png)
    if wanted.draw:
        write_jpeg(out / DRAWINGS / f"{name}.jpg", image if drawn is None else drawn)
    if wanted.cutouts:
        pixels = cv2.cvtColor(cutout.with_alpha(image, mask), cv2.COLOR_RGBA2BGRA)
        write_bytes(below(out / CUTOUTS / f"{name}.png"), cv2.imencode(".png", pixels)[1].tobytes())


def _add_frames(
    videos: dict[str, DrawnVideo],
    block: Whole,
    image: np.ndarray,
    mask: np.ndarray,
    drawn: np.ndarray | None,
    wanted: Wanted,
) -> None:
    table = np.concatenate([colours(255), np.full((1, 3), 255, np.uint8)])
    videos[MASKS].add(block.video, block.rate, table[mask])
    if wanted.draw:
        videos[DRAWINGS].add(block.video, block.rate, image if drawn is None else drawn)
    if wanted.cutouts:
        videos[CUTOUTS].add(block.video, block.rate, cutout.over(image, mask, wanted.background))
