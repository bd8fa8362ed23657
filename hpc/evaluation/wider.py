"""AP by the official protocol of WIDER FACE: of a run's detections, or of text files of any detector.

`rostro evaluate RUN ground_truth=DIR` judges the images of a set that are in the official .mat files, each
row as it would stand in a text file; `rostro score wider` reads such files. Both give the same digits. The
protocol: `hpc/metrics/wider.py`.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.inspect.groups import Group
from data_shards.ragged import Ragged
from hpc.evaluation import keys
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows, Table, check_finite
from hpc.evaluation.by_group import Shown, add_groups, figure
from hpc.metrics import wider as metrics
from hpc.metrics import wider_files as files
from hpc.metrics.average_precision import recall_figures
from hpc.metrics.bootstrap import blocks_of, percentiles, weights
from hpc.metrics.boxes import to_corner_and_size
from hpc.metrics.groups import Groups
from hpc.plots.precision import draw_precision

if TYPE_CHECKING:
    from hpc.task import Task

LEVELS = {  # what the numbers of the official labels mean, in the set's readme.txt
    "blur": ("clear", "normal", "heavy"),
    "expression": ("typical", "exaggerated"),
    "illumination": ("normal", "extreme"),
    "occlusion": ("none", "partial", "heavy"),
    "pose": ("typical", "atypical"),
}
HEIGHTS = (0, 16, 32, 64, 128, 256)  # pixels: bands of faces
DIGITS = 4


class Wider(Evaluator):
    """Judges the task's prediction `output`: Ragged rows x0, y0, x1, y1 in pixels of the file, and score."""

    KEYS = keys.WIDER
    headline = metrics.SETTINGS

    def __init__(self, *, output: str = "detections") -> None:
        self.output = output
        self._ids: list[np.ndarray] = []
        self._found: list[Ragged] = []
        self._names: dict[int, str] = {}
        self._shards = None

    @property
    def asked(self) -> bool:
        return bool(self.word("ground_truth"))

    def begin(self, judged: JudgedSet) -> None:
        self._shards = judged.shards

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        self.keep(batch.ids[:, 0].numpy(), task.predict(nets, batch)[self.output])

    def keep(self, ids: np.ndarray, found: Ragged) -> None:
        """Keep the detections `found` [m, 5 or more] of the samples `ids` [n]."""
        self._ids.append(np.asarray(ids))
        self._found.append(Ragged(found.rows[:, :5].double().cpu(), found.starts))

    def rows(self) -> Rows:
        nothing = Ragged(torch.zeros(0, 5, dtype=torch.float64), np.zeros(1, np.int64))
        ids = np.concatenate([np.zeros(0, np.int64), *self._ids])
        return {"ids": ids, "detections": Ragged.cat([nothing, *self._found])}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        found, folder = rows["detections"], str(self.word("ground_truth"))
        assert isinstance(found, Ragged)
        check_finite(self.output, found.rows.numpy())
        if not folder:
            raise UserError("ground_truth is missing: add the folder of the official .mat files")
        faces = files.read_faces(Path(folder))
        names = self._names_of(np.asarray(rows["ids"]), faces)
        texts = [
            files.text_of(name, np.concatenate([to_corner_and_size(each[:, :4]), each[:, 4:]], 1))
            for name, each in zip(names, map(found.of, range(len(found))), strict=True)
        ]
        if written := str(self.word("written")):
            for name, text in zip(names, texts, strict=True):
                files.write_text(Path(written), name, text)
        parsed = {
            name: torch.from_numpy(files.parse(text, where=name))
            for name, text in zip(names, texts, strict=True)
        }
        nothing = torch.zeros(0, 5, dtype=torch.float64)
        listed = Ragged.of_lists([parsed.get(name, nothing) for name in faces.names])
        there = np.array([name in parsed for name in faces.names])
        return judged(self, faces, listed, there, where="the judged set", rounds=rounds)

    def _names_of(self, ids: np.ndarray, faces: metrics.Faces) -> list[str]:
        """Return the official names of samples, whose files are called alike. UserError where one is not."""
        assert self._shards is not None
        official = {name.rpartition("/")[2]: name for name in faces.names}
        names = []
        for row in ids.tolist():
            member = PurePosixPath(self._shards.member(row))
            if member.stem not in official:
                raise UserError(
                    f"{member} of {self._shards.folder} is not an image of {files.TRUTH}: judge the "
                    "validation part of WIDER FACE, packed by source=widerface"
                )
            names.append(official[member.stem])
        return names


def score(each: Wider, predictions: Path, truth: Path, *, rounds: int) -> Report:
    """Judge the text files of any detector below `predictions`. UserError where one is not as it must be."""
    if not predictions.is_dir():
        raise UserError(f"predictions={predictions} is not a folder: give the one that holds event/name.txt")
    faces = files.read_faces(truth)
    found, there = files.read_detections(predictions, faces.names)
    report = judged(each, faces, found, there, where=f"predictions={predictions}", rounds=rounds)
    if left := files.others(predictions, faces.names):
        report.notes.append(f"note: {len(left):,} files of no official image are left out, such as {left[0]}")
    return report


def judged(
    each: Evaluator, faces: metrics.Faces, found: Ragged, there: np.ndarray, *, where: str, rounds: int
) -> Report:
    """Return the report on the detections `found` [k, 5] of the images that are `there`, bool [n]."""
    absent = int((~there).sum())
    if absent and (each.word("missing") != "skip" or not there.any()):
        name = faces.names[int(np.flatnonzero(~there)[0])]
        raise UserError(
            f"{where} has nothing of {absent:,} of the {len(there):,} official images, first {name}: "
            "predict them, or judge the others alone by missing=skip"
        )
    images = np.flatnonzero(there)
    faces, found = faces.take(images), found.take(images)
    matches = metrics.match(faces, found)
    results = {name: metrics.judge(matches, kept) for name, kept in faces.kept.items()}
    report = Report({name: result.ap for name, result in results.items() if result.faces})
    report.intervals |= _intervals(faces, matches, rounds)
    _add_by_group(report, each, faces, matches, results, rounds)
    note = f"{len(images):,} images, {len(found.rows):,} detections; AP of the official protocol"
    table = Table(("setting", "AP", "faces", "best F1", "precision", "recall", "at score"), [], note)
    cells = [_cells(name, result, report) for name, result in results.items()]
    report.tables = {"figures": Table(table.columns, cells, note)} | report.tables
    curves = {f"{name}: {result.ap:.4f}": result.curve for name, result in results.items()}
    report.figures = {
        "precision.png": lambda path: draw_precision(path, curves, title=f"WIDER FACE: {path.parent.name}")
    } | report.figures
    report.facts = {"wider": {"images": len(images), "of": len(there), "detections": len(found.rows)}}
    if absent:
        report.notes.append(
            f"note: {absent:,} of the {len(there):,} official images are not there and are left out: these "
            "are no figures of the official set"
        )
    return report


def _cells(name: str, result: metrics.Result, report: Report) -> list[object]:
    best = result.curve.best
    values = (result.curve.f1[best], result.curve.precision[best], result.curve.recall[best])
    return [
        name,
        figure(report.scalars, report.intervals, name),
        result.faces,
        *(round(float(value), DIGITS) for value in values),
        round(float(result.curve.scores[best]), DIGITS),
    ]


def _intervals(faces: metrics.Faces, matches: metrics.Matches, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals of the settings' figures: images are drawn with replacement."""
    images = np.arange(len(faces.names))
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in faces.kept}
    for block in blocks_of(images, rounds):
        weight = weights(images, block)
        for name, kept in faces.kept.items():
            drawn[name].append(metrics.resampled(faces, matches, kept, weight))
    spread = {name: percentiles(np.concatenate(parts)) for name, parts in drawn.items() if parts}
    return {name: pair for name, pair in spread.items() if pair is not None}


def _add_by_group(
    report: Report,
    each: Evaluator,
    faces: metrics.Faces,
    matches: metrics.Matches,
    results: dict[str, metrics.Result],
    rounds: int,
) -> None:
    """Add the recall of faces by their labels, size and event, at the score of the best F1 of `hard`."""
    kept, curve = faces.kept["hard"], results["hard"].curve
    if not kept.any():
        return
    at = float(curve.scores[curve.best])
    _, right = matches.right(kept)
    found = np.zeros(len(kept), bool)
    found[matches.faces[right & (matches.scores >= at)]] = True
    rows = np.flatnonzero(kept)
    owners = faces.boxes.owners
    groups = Groups(_groups(faces, owners), owners, together=())
    report.scalars["recall"] = float(found[rows].mean())
    shown = Shown(("recall",), shares=("recall",))
    add_groups(report, each, recall_figures(found[rows]), rows, groups, rounds, shown)
    report.notes.append(
        f"recall: of the faces of `hard`, by normalised scores of {at:.3f} or more, its best F1"
    )


def _groups(faces: metrics.Faces, owners: np.ndarray) -> dict[str, Group]:
    heights = faces.boxes.rows[:, 3].numpy()
    bands = [f"{low}-{high}" for low, high in zip(HEIGHTS, (*HEIGHTS[1:], None), strict=True) if high]
    groups = {
        "height": Group((*bands, f"{HEIGHTS[-1]}+"), np.searchsorted(HEIGHTS, heights, side="right") - 1)
    }
    for name, levels in LEVELS.items():
        if name in faces.labels:
            codes = faces.labels[name].astype(np.int64)
            groups[name] = Group(levels, np.where(codes < len(levels), codes, -1))
    events, codes = np.unique([name.partition("/")[0] for name in faces.names], return_inverse=True)
    return groups | {"event": Group(_plain(events.tolist()), codes[owners])}


def _plain(events: Sequence[str]) -> tuple[str, ...]:
    """Return the names of events without their numbers: `4--Dancing` is Dancing."""
    return tuple(name.partition("--")[2] or name for name in events)
