"""Recall of objects by group, and the pictures of the images on which a detector errs most."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_shards.inspect.groups import Group
from data_shards.loading.reader import Reader
from data_shards.ragged import Ragged
from hpc.evaluation.base import Evaluator, Report
from hpc.evaluation.by_group import Shown, add_groups
from hpc.metrics import coco, matched
from hpc.metrics.average_precision import recall_figures
from hpc.metrics.groups import Groups
from hpc.plots.boxes import MISSED, RIGHT, WRONG, draw_boxes, fitted
from hpc.plots.heat import Cell, draw_sheet

WORST = 12  # images
CELL = 320  # pixels
NO_GROUPS = ("ignore", "crowd")  # flags that are no groups


@dataclass(frozen=True)
class Judged:
    """What was judged: n images and m truths."""

    ids: np.ndarray  # [n]
    truths: coco.Truths
    pairs: matched.Matched
    flags: dict[str, np.ndarray]  # bool [m]
    names: list[str]  # of the classes
    score: float  # from which a detection counts


def add_groups_of_truths(
    report: Report, each: Evaluator, judged: Judged, groups: Groups, rounds: int
) -> None:
    """Add the recall by size, flag and class of the objects, and by the labels of their images."""
    rows = np.flatnonzero(judged.pairs.judged)
    if not len(rows):
        return
    owners = judged.truths.boxes.owners
    images = judged.ids[owners]
    columns = {"size": _sizes(judged.truths.area)}
    for name, flag in judged.flags.items():
        if name not in NO_GROUPS:
            columns[name] = Group(("no", "yes"), flag.astype(np.int64))
    if len(judged.names) > 1:
        columns["class"] = Group(tuple(judged.names), judged.truths.classes)
    for name, group in groups.columns.items():
        columns[name] = Group(group.names, np.asarray(group.codes)[images])
    units = images if groups.units is None else np.asarray(groups.units)[images]
    found = judged.pairs.found >= judged.score
    add_groups(
        report,
        each,
        recall_figures(found[rows]),
        rows,
        Groups(columns, units, together=()),
        rounds,
        Shown(("recall",), shares=("recall",)),
    )


def _sizes(area: np.ndarray) -> Group:
    names = ("small (< 32²)", "medium (< 96²)", "large")
    return Group(names, np.searchsorted([coco.SMALL, coco.LARGE], area, side="right"))


def draw_worst(
    path: Path,
    shards: Any,
    ids: np.ndarray,
    truths: coco.Truths,
    found: Ragged,
    pairs: matched.Matched,
    score: float,
) -> None:
    """Draw the images with the most misses and false detections, of scores of at least `score`, as a PNG."""
    wrong = pairs.counted & (pairs.truth < 0) & (pairs.scores >= score)
    missed = pairs.judged & (pairs.found < score)
    false = np.bincount(found.owners[wrong], minlength=len(ids))
    lost = np.bincount(truths.boxes.owners[missed], minlength=len(ids))
    worst = np.argsort(-(false + lost), kind="stable")[:WORST]
    worst = worst[(false + lost)[worst] > 0]
    cells = []
    for image, data in zip(worst.tolist(), _read(shards, ids[worst]), strict=True):
        own = slice(int(truths.boxes.starts[image]), int(truths.boxes.starts[image + 1]))
        part = slice(int(found.starts[image]), int(found.starts[image + 1]))
        kept = pairs.counted[part] & (pairs.scores[part] >= score)
        boxes = np.concatenate(
            [truths.boxes.rows[own].numpy()[missed[own]], found.rows[part, :4].numpy()[kept]]
        )
        colours = [MISSED] * int(missed[own].sum())
        colours += [RIGHT if hit >= 0 else WRONG for hit in pairs.truth[part][kept]]
        cell, placed = fitted(data, boxes, CELL)
        lines = [f"{lost[image]} missed, {false[image]} false", f"of {own.stop - own.start} objects"]
        cells.append(Cell(draw_boxes(cell, placed, colours), lines))
    title = f"most errors at {score:.3g}: green found, orange missed, red false: {path.parent.name}"
    draw_sheet(path, cells, title=title, columns=4)


def _read(shards: Any, ids: np.ndarray) -> list[np.ndarray]:
    """Return the stored images of samples, uint8 [h, w, 3] RGB."""
    reader = Reader(shards)
    try:
        blobs = reader.read(ids) if len(ids) else []
    finally:
        reader.close()
    images = []
    for blob in blobs:
        image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None  # it was decoded when it was packed
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return images
