"""Objects in images, videos and packed sets, written as records, pictures, videos, label files and crops.

`rostro predict` of a detector: one of a run, or a public one (`centerface.py`). Boxes are in pixels of the
file. Below out=: predictions.csv or .json, drawn/, crops/, labels/; or event/name.txt, WIDER FACE's layout.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from data_shards.errors import UserError
from data_shards.files import write_bytes
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.video_frames import check_reader, is_video
from hpc.inference import drawn_boxes
from hpc.inference.detector import Detector
from hpc.inference.drawn_video import DrawnVideo
from hpc.inference.loose import find_images
from hpc.inference.predict import DRAWINGS, Predicted, RecordWriter, below, list_rejected, plain, write_jpeg
from hpc.inference.whole_images import Files, Frames, Members, Whole, camera
from hpc.metrics import wider_files
from hpc.metrics.boxes import to_corner_and_size

CROPS, LABELS = "crops", "labels"  # folders below out=
LAYOUTS = ("yolo", "wider")


@dataclass(frozen=True)
class Wanted:
    """What is written. score: from which a detection counts (None = the detector's own)."""

    format: str = "csv"
    draw: bool = False
    crops: bool = False
    layout: str = ""  # of label files: yolo | wider (empty = none)
    score: float | None = None


def detect(
    detector: Detector,
    place: str,
    out: Path,
    wanted: Wanted,
    *,
    threads: int = 0,
    frames: int | None = None,
    progress: Callable[[str, Any], Iterable[Any]] = lambda text, blocks: blocks,
) -> Predicted:
    """Find objects in what `place` names; write to `out`. Raises UserError.

    frames: of a camera (None = until Ctrl-C)
    """
    threads = threads or len(os.sched_getaffinity(0))
    parts = list(parts_of(place, [out / DRAWINGS, out / CROPS], threads, frames))
    score = detector.score if wanted.score is None else wanted.score
    out.mkdir(parents=True, exist_ok=True)
    done = Predicted(out / f"predictions.{wanted.format}", notes=list(detector.notes))
    done.notes.append(f"  objects of a score of {score:.4g} or more")
    files = _Files(out, wanted, Path(place).resolve(), detector.names)
    with RecordWriter(done.file, wanted.format) as records:
        for title, part in parts:
            with DrawnVideo(out / DRAWINGS) as video:
                for block in progress(title, part):
                    done.rejected += block.rejected
                    for name, image, found in _found(detector, block):
                        kept = found[found[:, 4] >= score]
                        rendered = detector.render(image, kept)
                        records.write(name, _flat(rendered.record, wanted.format))
                        drawn = image if rendered.image is None else rendered.image
                        if wanted.draw and block.video:
                            video.add(block.video, block.rate, drawn)
                        elif wanted.draw:
                            write_jpeg(out / DRAWINGS / f"{name}.jpg", drawn)
                        files.write(name, image, kept, found, rendered.label)
                        done.images += 1
    list_rejected(out / "rejected.csv", done.rejected)
    return done


def _found(detector: Detector, block: Whole) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    found = detector.find(block.images) if block.images else []
    yield from zip(block.names, block.images, found, strict=True)


def parts_of(place: str, but: Sequence[Path], threads: int, frames: int | None) -> Iterator[tuple[str, Any]]:
    """Yield a title and the blocks of each part: the images together, each video alone.

    but: folders to leave out, in which an earlier prediction has written. frames: of a camera
    """
    device = camera(place, 1 << 30 if frames is None else frames)
    if device is not None:
        yield "predicting the camera's frames", device
        return
    if frames is not None:
        raise UserError("frames= counts those of a camera, of a video all are looked at: leave it out")
    path = Path(place)
    if (path / "manifest.json").is_file():
        yield "predicting", Members(ShardSet.open(path))
        return
    folder, files = find_images(path, but=but)
    videos = [file for file in files if is_video(file)]
    if videos:
        check_reader(str(folder / videos[0]))
    if stills := [file for file in files if not is_video(file)]:
        yield "predicting", Files(folder, stills, threads=threads)
    for file in videos:
        yield f"predicting {file}", Frames(folder, file)


@dataclass(frozen=True)
class _Files:
    """Writes label files and crops of one image after the other."""

    out: Path
    wanted: Wanted
    place: Path  # what was asked for
    names: Sequence[str]  # of the classes
    taken: dict[str, str] = field(default_factory=dict)  # stem -> the image that has it

    def write(self, name: str, image: np.ndarray, kept: np.ndarray, found: np.ndarray, label: str) -> None:
        """Write what is wanted of an image; kept: the detections that count, found: all of them."""
        stem = self._stem(name)
        if self.wanted.crops:
            for number, part in enumerate(drawn_boxes.crops(image, kept)):
                kind = drawn_boxes.folder_of(self.names, int(kept[number, 5]))
                write_jpeg(self.out / CROPS / kind / f"{stem}-{number}.jpg", part)
        if self.wanted.layout == "yolo":
            write_bytes(below(self.out / LABELS / f"{stem}.txt"), label.encode())
        elif self.wanted.layout == "wider":
            event = self.place.name if self.place.is_dir() else self.place.parent.name
            official = "/".join(PurePosixPath(event, stem).parts[-2:])
            sides = to_corner_and_size(torch.from_numpy(found[:, :4].astype(np.float64))).numpy()
            rows = np.concatenate([sides, found[:, 4:5]], 1)
            wider_files.write_text(self.out, official, wider_files.text_of(official, rows))

    def _stem(self, name: str) -> str:
        """Return an image's name without its ending, or all of it where another image has that one."""
        path, _, frame = name.rpartition("#")
        if path and is_video(path):
            return f"{path}-{frame}"
        stem = str(PurePosixPath(name).with_suffix(""))
        return stem if self.taken.setdefault(stem, name) == name else name


def _flat(record: dict[str, Any], format: str) -> dict[str, Any]:
    """Return a record that has equal columns for every image as CSV, where lists become JSON."""
    if format == "json":
        return record
    return {
        key: json.dumps(plain(value)) if isinstance(value, list) else value for key, value in record.items()
    }
