"""Faces with more and less of an attribute: latents moved along the difference of two means.

The direction is the mean latent of the images of a set that have the attribute, less that of those that do
not (Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", section 4.2).
`rostro generate attribute=`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards import counter_rng
from data_shards.batch import IMAGE, Batch, pixels_of
from data_shards.errors import UserError
from data_shards.files import write_bytes
from data_shards.loading.loader import EvalLoader
from data_shards.shard_format.shard_set import ShardSet
from hpc.config.types import near
from hpc.data import views
from hpc.generator import Autoencoder
from hpc.inference.generate import BLOCK, check_pixels
from hpc.inference.predictor import BATCH, Predictor, device
from hpc.monitor.projector import png

MOST = 10_000  # images of each side of which the mean is taken
STRONGEST = 100.0
GAP = 2  # pixels between images
Progress = Callable[[str, Any], Iterable[Any]]


@dataclass(frozen=True)
class Attribute:
    """A bit of a packed set: which of its images have it, which do not, and of which faces are shown."""

    name: str
    shards: ShardSet
    having: np.ndarray  # ids, sorted
    lacking: np.ndarray
    faces: ShardSet


def strengths_of(text: str, steps: int) -> np.ndarray:
    """Read `-3..3`, or `3` for that, as `steps` strengths from the first to the last. UserError."""
    low, dots, high = text.partition("..")
    try:
        ends = (float(low), float(high)) if dots else (-float(low), float(low))
    except ValueError:
        ends = (math.nan, math.nan)
    if not -STRONGEST <= ends[0] < ends[1] <= STRONGEST:
        raise UserError(f"strength={text} is not a rising range up to {STRONGEST:g}: type strength=-3..3")
    return np.linspace(*ends, steps)


def open_attribute(model: Predictor, name: str, place: str) -> Attribute:
    """Find the attribute `name` in the set at `place` ("" = what the run was trained on). UserError.

    place: the folder of a packed set, or the one that holds its splits: the direction is of `train`, faces
    are of those that were held out, where there are some.
    """
    folder, held = _folders(model, place)
    shards, faces = ShardSet.open(folder), ShardSet.open(held)
    column = _column(shards, name)
    having, lacking = (np.flatnonzero(column == value) for value in (1, 0))
    if not len(having) or not len(lacking):
        known = "all" if len(having) else "none"
        raise UserError(
            f"attribute={name}: {known} of the {len(having) + len(lacking):,} images of {folder} that state "
            "it have it: give data= a set with both"
        )
    return Attribute(name, shards, having, lacking, faces)


def write_attribute(
    model: Predictor,
    coder: Autoencoder,
    attribute: Attribute,
    path: Path,
    *,
    rows: int,
    strengths: np.ndarray,
    seed: int,
    progress: Progress = lambda text, steps: steps,
) -> None:
    """Write a row for each of `rows` faces: the face itself, and it with each strength of the attribute."""
    rows = min(rows, len(attribute.faces))
    words = f"rows={rows} steps={len(strengths)}"
    check_pixels(rows * (1 + len(strengths)), coder.side, words, "type smaller numbers")
    direction = find_direction(model, coder, attribute, progress=progress)
    ids = _drawn(np.arange(len(attribute.faces)), rows, seed)
    (batch,) = _batches(model, attribute.faces, ids, rows)
    given = batch.images[IMAGE]
    steps = torch.as_tensor(strengths, dtype=torch.float32, device=given.device)
    with torch.inference_mode():
        moved = coder.encode(given)[:, None] + steps[:, None] * direction
        flat = moved.flatten(0, 1)
        made = [pixels_of(coder(flat[low : low + BLOCK])) for low in range(0, len(flat), BLOCK)]
    cells = np.concatenate(made).reshape(rows, len(strengths), coder.side, coder.side, 3)
    cells = np.concatenate([pixels_of(given)[:, None], cells], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png(_laid(cells)))


def find_direction(
    model: Predictor,
    coder: Autoencoder,
    attribute: Attribute,
    *,
    progress: Progress = lambda text, steps: steps,
) -> Tensor:
    """Return the mean latent of images with the attribute less that of images without, float32 [d].

    Of each at most MOST images, drawn by hash.
    """
    means = []
    for ids, what in ((attribute.having, "with"), (attribute.lacking, "without")):
        ids = _drawn(ids, MOST, 0)
        total = torch.zeros(coder.latents, dtype=torch.float64, device=device())
        for batch in progress(
            f"images {what} {attribute.name}", _batches(model, attribute.shards, ids, BATCH)
        ):
            with torch.inference_mode():
                total += coder.encode(batch.images[IMAGE]).double().sum(0)
        means.append(total / len(ids))
    return (means[0] - means[1]).float()


def _folders(model: Predictor, place: str) -> tuple[Path, Path]:
    """Return the set of the direction and that of the faces."""
    data = model.config.data
    if not place:
        if not _is_set(data.train):
            raise UserError(f"data is missing: {data.train}, the run's own set, is not there: add data=SET")
        return Path(data.train), _first([data.eval, data.val, data.train])
    folder = _first([place, Path(place, "train")])
    if not _is_set(folder):
        raise UserError(f"data={place} is not a packed set: give one that `rostro pack` made")
    return folder, _first([folder.parent / "eval", folder.parent / "val", folder])


def _first(folders: Sequence[str | Path]) -> Path:
    """Return the first folder that is a packed set, or else the last one."""
    return Path(next((folder for folder in folders if _is_set(folder)), folders[-1]))


def _is_set(folder: str | Path) -> bool:
    """Return whether a folder is a packed set; an empty name is none."""
    return bool(folder) and Path(folder, "manifest.json").is_file()


def _column(shards: ShardSet, name: str) -> np.ndarray:
    """Return what the images of a set state of an attribute: 1, 0, or anything else where it is not known."""
    fields = {field: each for field, each in shards.schema.fields.items() if each.kind == "bits"}
    places = {bit: (field, place) for field, each in fields.items() for place, bit in enumerate(each.names)}
    if not places:
        labels = ", ".join(shards.schema.fields) or "none"
        raise UserError(
            f"data={shards.folder} has no label of attributes (its labels: {labels}): give a set that has "
            "them, such as one of source=celeba"
        )
    if name not in places:
        raise UserError(f"attribute={name}: {shards.folder} has none: {near(name, places, what='attribute')}")
    field, place = places[name]
    return np.asarray(shards.labels[field])[:, place]


def _drawn(ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return `count` of the ids, drawn by hash and sorted; all of them where there are fewer."""
    if len(ids) <= count:
        return ids
    stream = counter_rng.key(seed, "attribute")
    return np.sort(ids[counter_rng.permute(stream, np.arange(count), len(ids))])


def _batches(model: Predictor, shards: ShardSet, ids: np.ndarray, batch: int) -> "Prepared":
    view = views.evaluation(model.config, model.config.data.size)
    return Prepared(EvalLoader(shards, rank=0, world=1, batch=batch, view=view, ids=ids))


class Prepared:
    """The batches of a loader on the device, as many."""

    def __init__(self, loader: EvalLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return (batch.prepare(device()) for batch in self.loader)


def _laid(cells: np.ndarray) -> np.ndarray:
    """Lay images uint8 [rows, columns, h, w, 3] out as one, with gaps."""
    rows, columns, height, width, _ = cells.shape
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            sheet[top : top + height, left : left + width] = cells[row, column]
    return sheet
