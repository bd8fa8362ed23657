"""Judges a set again as JPEGs of lower quality: what a network sees of images that were saved again.

The decoded image, at the network's size, is written and read by libjpeg-turbo with 4:2:0 subsampling.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import simplejpeg
import torch

from data_shards.batch import IMAGE, Batch
from data_shards.errors import UserError
from hpc.evaluation.base import Report, Table
from hpc.evaluation.by_group import figure

TITLE = "recompressed"


def qualities(text: str) -> list[int]:
    """Read `90,70,50`; [] for an empty text. Raises UserError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(not word.isascii() or not word.isdigit() or not 1 <= int(word) <= 100 for word in words):
        raise UserError(
            f"recompress={text} is not a list of qualities from 1 to 100: type recompress=90,70,50"
        )
    return list(dict.fromkeys(map(int, words)))


class Recompressed:
    """The batches of a loader, their images written as JPEGs of `quality` and read again."""

    def __init__(self, batches: Any, quality: int) -> None:
        self._batches, self.quality = batches, quality

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            pixels = batch.images[IMAGE].permute(0, 2, 3, 1).contiguous().numpy()
            again = np.stack([recompressed(image, self.quality) for image in pixels])
            images = batch.images | {IMAGE: torch.from_numpy(again).permute(0, 3, 1, 2)}
            yield dataclasses.replace(batch, images=images)


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Return `image` uint8 [h, w, 3] after a JPEG of `quality`."""
    data = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420")
    return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))


def add_table(report: Report, others: dict[int, Report], headline: Iterable[str]) -> None:
    """Add the figures `headline` by quality: a table, and scalars such as `accuracy_jpeg70`."""
    names = [name for name in headline if name in report.scalars]
    cells = [["as it is", *(figure(report.scalars, report.intervals, name) for name in names)]]
    for quality, each in others.items():
        cells.append([str(quality), *(figure(each.scalars, each.intervals, name) for name in names)])
        for kind in ("scalars", "intervals"):
            found = getattr(each, kind)
            getattr(report, kind).update(
                {f"{name}_jpeg{quality}": found[name] for name in names if name in found}
            )
    note = "quality of a JPEG with 4:2:0 subsampling at the size that the network sees"
    report.tables[TITLE] = Table(("JPEG quality", *names), cells, note)
