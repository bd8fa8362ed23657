"""What a run's network says of loose images or a packed set, as CSV or JSON, and drawn: `rostro predict`.

A record of an image is what `Task.render` makes of the outputs of `Task.predict`.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from data_shards.batch import IMAGE, PAIR
from data_shards.errors import UserError
from data_shards.files import write_bytes
from data_shards.loading.loader import EvalLoader
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.paired import input_and_target, states_direction
from data_shards.sources.video_frames import check_reader, is_video
from hpc.data import views
from hpc.inference import gradcam
from hpc.inference.explain import panels
from hpc.inference.loose import LooseBlock, LooseBlocks, find_images
from hpc.inference.loose_videos import FRAMES, Joined, VideoBlocks
from hpc.inference.names import learn_chosen, learn_names
from hpc.inference.predictor import BATCH, Predictor
from hpc.task import Rendered

DRAWN = 256  # pixels: a smaller square is enlarged before it is drawn on
DRAWINGS, EXPLAINED = "drawn", "explained"  # folders of pictures, below out=
QUALITY = 92  # of drawn JPEGs


@dataclass
class Predicted:
    """What a prediction has written."""

    file: Path
    images: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)  # file, reason
    notes: list[str] = field(default_factory=list)  # how sure the predictions are


def predict(
    model: Predictor,
    place: Path,
    out: Path,
    *,
    format: str = "csv",
    draw: bool = False,
    explain: bool = False,
    threads: int = 0,
    exact: bool = False,
    frames: int = FRAMES,
    progress: Callable[[str, Any], Iterable[Any]] = lambda text, blocks: blocks,
) -> Predicted:
    """Predict all images of `place`, a file, a folder or a packed set; write `out`/predictions.csv or .json.

    draw: also write each image with its prediction to `out`/drawn. explain: also write to `out`/explained
    what in it speaks for each answer. Files that are no usable images are listed in `out`/rejected.csv.
    threads: that decode (0 = one a core). exact: decode large JPEGs whole. frames: of each video. Raises
    UserError.
    """
    if "images" not in model.task.takes:
        raise UserError(
            f"{model.run}: task {model.config.task['name']} makes images of latents and looks at none: type "
            f"`rostro generate {model.run} out={out}`"
        )
    learn_names(model)
    if explain:
        gradcam.check(model)
    drawn, explained = out / DRAWINGS, out / EXPLAINED
    notes = learn_chosen(model)
    view, threads = (
        views.evaluation(model.config, model.config.data.size),
        threads or len(os.sched_getaffinity(0)),
    )
    if (place / "manifest.json").is_file():
        blocks: Any = SetBlocks(ShardSet.open(place), view=view, threads=threads)
    else:
        folder, files = find_images(place, but=(drawn, explained))
        single = replace(view, halves=False)
        blocks = _loose(folder, files, view=single, threads=threads, exact=exact, frames=frames)
    out.mkdir(parents=True, exist_ok=True)
    done = Predicted(out / f"predictions.{format}", notes=notes)
    with RecordWriter(done.file, format) as writer:
        for block in progress("predicting", blocks):
            done.rejected += block.rejected
            pictures = panels(model, block.images) if explain else iter(())
            for name, image, rendered in render(model, block):
                writer.write(name, rendered.record)
                if draw:
                    _draw(drawn / f"{name}.jpg", image, rendered)
                if explain:
                    parts = [captioned(picture, {"": line}) for picture, line in next(pictures)]
                    write_jpeg(explained / f"{name}.jpg", np.hstack(parts))
                if rendered.label:
                    write_bytes(below(out / "labels" / f"{name}.txt"), rendered.label.encode())
            done.images += len(block.files)
    list_rejected(out / "rejected.csv", done.rejected)
    return done


def _loose(folder: Path, files: Sequence[str], *, view: View, threads: int, exact: bool, frames: int) -> Any:
    """Return the blocks of image files, and after them those of the frames of videos."""
    videos = [file for file in files if is_video(file)]
    if videos:
        check_reader(str(folder / videos[0]))
    still = [file for file in files if not is_video(file)]
    return Joined(
        LooseBlocks(folder, still, view=view, block=BATCH, threads=threads, exact=exact),
        VideoBlocks(folder, videos, view=view, block=BATCH, frames=frames),
    )


class SetBlocks:
    """The samples of a packed set, as an iterable of `LooseBlock`; files are the names in the shards.

    Where the view takes halves of pairs, they are the inputs.
    """

    def __init__(self, shards: ShardSet, *, view: View, threads: int) -> None:
        self.shards, self.name = shards, IMAGE
        if view.halves and states_direction(shards.manifest):
            self.name, _ = input_and_target(shards.manifest)
        view = replace(view, halves=self.name != IMAGE)
        self.loader = EvalLoader(shards, rank=0, world=1, batch=BATCH, view=view, threads=threads)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[LooseBlock]:
        for batch in self.loader:
            names = [self.shards.member(row) for row in batch.ids[:, 0].tolist()]
            assert batch.placed is not None
            placed = batch.placed if self.name == IMAGE else batch.placed[PAIR.index(self.name) :: len(PAIR)]
            yield LooseBlock(names, batch.images[self.name].permute(0, 2, 3, 1).numpy(), placed, [])


def render(model: Predictor, block: LooseBlock) -> Iterator[tuple[str, np.ndarray, Rendered]]:
    """Yield name, image and what the task makes of its prediction, for each image of a block."""
    outputs = model.predict(block.images, block.placed) if block.files else {}
    for row, name in enumerate(block.files):
        values = {key: value[row] for key, value in outputs.items()}
        yield name, block.images[row], model.task.render(block.images[row], values)


class RecordWriter:
    """Writes records as they come, to a temporary file that is renamed at the end."""

    def __init__(self, path: Path, format: str) -> None:
        self.path, self.format = path, format
        self._temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        self._stream: TextIO | None = None
        self._columns: list[str] = []
        self._count = 0

    def __enter__(self) -> "RecordWriter":
        self._stream = self._temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        if self.format == "json":
            self._stream.write("[")
        return self

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        assert self._stream is not None
        self._count += 1
        if self.format == "json":
            text = json.dumps({"image": name} | plain(record), ensure_ascii=False)
            self._stream.write(("," if self._count > 1 else "") + "\n" + text)
            return
        flat = flattened(record)
        if self._count == 1:
            self._columns = list(flat)
            csv.writer(self._stream).writerow(["image", *self._columns])
        if list(flat) != self._columns:
            raise UserError("format=csv: images have unequal records: type format=json")
        csv.writer(self._stream).writerow([name, *flat.values()])

    def __exit__(self, kind: object, *rest: object) -> None:
        assert self._stream is not None
        if self.format == "json":
            self._stream.write("\n]\n")
        self._stream.close()
        if kind is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Return what CSV and JSON hold of a value; numbers have 8 digits, as many as float32 can tell apart."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float):
        return value
    return float(f"{value:.8g}") if math.isfinite(value) else None


def flattened(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a record: a list of numbers becomes `name_0`, `name_1`; what is deeper, JSON."""
    flat: dict[str, Any] = {}
    for key, value in plain(record).items():
        if isinstance(value, list) and all(not isinstance(item, list | dict) for item in value):
            flat |= {f"{key}_{place}": item for place, item in enumerate(value)}
        else:
            flat[key] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat


def below(path: Path) -> Path:
    """Return the path of a file that is to be written, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _draw(path: Path, image: np.ndarray, rendered: Rendered) -> None:
    write_jpeg(path, rendered.image if rendered.image is not None else captioned(image, rendered.record))


def write_jpeg(path: Path, drawn: np.ndarray) -> None:
    """Write an image uint8 [h, w, 3] RGB, and the folders that it is in."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    write_bytes(below(path), data.tobytes())


def captioned(image: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """Return `image` uint8 [h, w, 3], enlarged if it is small, with the plain entries of `record` below."""
    scale = max(1, -(-DRAWN // image.shape[1]))
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    lines = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}".strip()
        for key, value in plain(record).items()
        if not isinstance(value, list | dict)
    ]
    step, thick = max(14, large.shape[1] // 18), max(1, large.shape[1] // 400)
    strip = np.full((step * len(lines) + 6, large.shape[1], 3), 255, np.uint8)
    for number, line in enumerate(lines):
        text = line.encode("ascii", "replace").decode()  # the fonts of OpenCV have no other letters
        place = (4, step * (number + 1) - 2)
        cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, step / 32, (20, 20, 20), thick, cv2.LINE_AA)
    return np.vstack([large, strip]) if lines else large


def list_rejected(path: Path, rejected: list[tuple[str, str]]) -> None:
    """Write files and reasons as CSV; of an earlier prediction nothing is left where there are none."""
    if not rejected:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerows([("image", "reason"), *rejected])
