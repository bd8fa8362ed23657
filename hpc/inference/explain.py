"""Pictures of where a run's network looks: panels for `rostro predict`, a sheet of mistakes for a report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.batch import IMAGE
from data_shards.loading.loader import EvalLoader
from data_shards.shard_format.shard_set import ShardSet
from hpc.data import views
from hpc.evaluation.base import Evaluator, Report
from hpc.inference.gradcam import Answer, answers, heat_maps, last_map
from hpc.inference.predictor import BATCH, Predictor
from hpc.plots.heat import Cell, draw_sheet, enlarged, overlay

PANEL = 256  # pixels: a smaller image is enlarged before it is drawn on
MISTAKES = 24  # of a sheet
CELL = 128  # pixels of an image of it


def panels(model: Predictor, images: np.ndarray) -> Iterator[list[tuple[np.ndarray, str]]]:
    """Yield for each of images uint8 [n, h, w, 3] the image, and an overlay for each answer of the task.

    Each has a caption: the answer and the class that the network says, or the likeliest bit; the overlay of
    a number shows what makes it larger.
    """
    explained = [(answer, *heat_maps(model, images, answer)) for answer in answers(model)]
    for row, image in enumerate(images):
        large = enlarged(image, PANEL)
        parts = [(large, "")]
        for answer, heat, said in explained:
            caption = " ".join(filter(None, (answer.field, answer.named(int(said[row])))))
            parts.append((overlay(large, np.clip(enlarged(heat[row], PANEL), 0, 1)), caption))
        yield parts


@dataclass(frozen=True)
class Mistakes:
    """The surest mistakes of an answer, the worst first."""

    ids: np.ndarray  # [m] samples
    targets: np.ndarray  # [m] the class that was said, or the bit that was wrong
    lines: list[list[str]]  # the caption of each
    many: int  # mistakes of that answer in all


def surest_mistakes(answer: Answer, evaluator: Evaluator, report: Report, most: int = MISTAKES) -> Mistakes:
    """Choose from what was judged: wrong classes by confidence, wrong bits by logit, numbers by error."""
    if answer.kind == "bits":
        return _wrong_bits(answer, evaluator.rows(), most)
    rows = report.rows
    ids, said, truth = (np.asarray(rows[name]) for name in ("ids", "predicted", "truth"))
    if answer.kind == "value":
        worst = np.argsort(-np.abs(said - truth), kind="stable")[:most]
        lines = [[f"said {said[row]:.4g}", f"is {truth[row]:.4g}"] for row in worst]
        return Mistakes(ids[worst], np.zeros(len(worst), np.int64), lines, len(ids))
    sure = np.asarray(rows["confidence"])
    wrong = np.flatnonzero(said != truth)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    lines = [
        [f"said {answer.named(int(said[row]))} {sure[row]:.3f}", f"is {answer.named(int(truth[row]))}"]
        for row in worst
    ]
    return Mistakes(ids[worst], said[worst].astype(np.int64), lines, len(wrong))


def _wrong_bits(answer: Answer, rows: Mapping[str, Any], most: int) -> Mistakes:
    order = np.argsort(np.asarray(rows["ids"]), kind="stable")
    ids, logits, labels = (np.asarray(rows[name])[order] for name in ("ids", "logits", "labels"))
    labels = labels.reshape(logits.shape)
    row, bit = np.nonzero(((logits > 0) != (labels == 1)) & ((labels == 0) | (labels == 1)))
    worst = np.argsort(-np.abs(logits[row, bit]), kind="stable")[:most]
    row, bit, many = row[worst], bit[worst], len(row)
    share = 1 / (1 + np.exp(-logits[row, bit].astype(np.float64)))
    lines = [
        [answer.named(int(which)), f"said {chance:.3f}, is {int(labels[where, which])}"]
        for where, which, chance in zip(row, bit, share, strict=True)
    ]
    return Mistakes(ids[row], bit.astype(np.int64), lines, many)


def add_sheets(
    model: Predictor, shards: ShardSet, evaluators: Mapping[str, Evaluator], reports: Mapping[str, Report]
) -> None:
    """Add `mistakes.png` to the figures of each report whose answer can be explained.

    It is drawn when the report is written: each of the surest mistakes beside where the network looked.
    """
    if last_map(model.nets) is None:
        return
    for answer in answers(model):
        for name, each in evaluators.items():
            if getattr(each, "field", None) != answer.field or not len(reports[name].rows or each.rows()):
                continue
            found = surest_mistakes(answer, each, reports[name])
            if len(found.ids):
                reports[name].figures["mistakes.png"] = _sheet(model, shards, answer, found)


def _sheet(model: Predictor, shards: ShardSet, answer: Answer, found: Mistakes) -> Any:
    def draw(path: Path) -> None:
        images = _decoded(model, shards, found.ids)
        heat, _ = heat_maps(model, images, answer, found.targets)
        cells = []
        for image, each, lines in zip(images, heat, found.lines, strict=True):
            large, wide = enlarged(image, CELL), enlarged(each, CELL)
            cells.append(Cell(np.hstack([large, overlay(large, np.clip(wide, 0, 1))]), lines))
        what = "largest errors" if answer.kind == "value" else f"surest of {found.many:,} mistakes"
        draw_sheet(path, cells, title=f"{answer.field}: the {what}, and where the network looked", columns=4)

    return draw


def _decoded(model: Predictor, shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    """Return the samples `ids` uint8 [n, h, w, 3] as they were judged."""
    view = views.evaluation(model.config, model.config.data.size)
    loader = EvalLoader(shards, rank=0, world=1, batch=BATCH, view=view, threads=1, ids=ids)
    return np.concatenate([batch.images[IMAGE].permute(0, 2, 3, 1).numpy() for batch in loader])
