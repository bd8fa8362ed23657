"""Judges the prediction file of another program by the evaluators of the jobs here: `rostro score`.

So public models stand beside ours in one table. A kind fills the evaluator's rows from the file and from the
truth, a packed set or a file; the figures are the evaluator's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.shard_set import ShardSet
from hpc.distributed.comm import Comm
from hpc.evaluation import prediction_file as files
from hpc.evaluation import wider
from hpc.evaluation.base import Evaluator, JudgedSet, Report
from hpc.evaluation.classes import Bits, Classes
from hpc.evaluation.keys import MAX_GAP
from hpc.evaluation.pair_protocol import score_run, trial
from hpc.evaluation.run import gathered
from hpc.evaluation.values import Values
from hpc.evaluation.wider import Wider
from hpc.metrics.groups import Groups, groups_of
from hpc.metrics.pair_list import read_list, shown
from hpc.metrics.pairs import Pairs
from hpc.metrics.verification import VerificationResult, bootstrap, measure
from hpc.plots import roc
from hpc.task import cosine

HARD = 30.0  # logit of a class that a file names without saying how sure it is


@dataclass
class Asked:
    """What `rostro score` was asked for."""

    predictions: Path
    truth: Path  # of kind wider the folder of the .mat files
    field: str = ""  # the label (empty = the one that both files name)
    pairs: Path | None = None  # a pair list for embeddings of a set
    groups: tuple[str, ...] = ()
    max_gap: float = 0.0  # as the figure's own unit
    support: int = 10
    skip: bool = False  # leave out images without a prediction
    rounds: int = 1000


@dataclass
class Truth:
    """Names of images, and the packed set or the columns that hold their labels."""

    names: list[str]
    shards: ShardSet | None
    columns: files.Columns

    @classmethod
    def read(cls, place: Path) -> "Truth":
        """Read a packed set or a file. Raises UserError."""
        if (place / "manifest.json").is_file():
            shards = ShardSet.open(place)
            names = [files.image_key(shards.member(row)) for row in range(len(shards))]
            return cls(names, shards, {})
        columns = files.read_columns(place, key="truth")
        names = list(
            files.rows_of(files.need(columns, files.IMAGE, where=f"truth={place}"), where=f"truth={place}")
        )
        return cls(names, None, columns)


def score(kind: str, asked: Asked) -> tuple[str, Report]:
    """Judge the file as the kind says: what a task would name the evaluator, and its report.

    Raises UserError for a file that is not of that kind.
    """
    return SCORERS[kind](asked)


def _labelled(asked: Asked) -> tuple[Truth, files.Columns, str, np.ndarray, np.ndarray, list[str]]:
    """Return truth, predictions, the label's name, matching places of both, and notes."""
    truth, where = Truth.read(asked.truth), f"predictions={asked.predictions}"
    columns = files.read_columns(asked.predictions, key="predictions")
    rows = files.rows_of(files.need(columns, files.IMAGE, where=where), where=where)
    known = set(truth.shards.labels) - {"identity"} if truth.shards else set(truth.columns) - {files.IMAGE}
    field = asked.field
    if not field:
        common = [name for name in sorted(known) if name in columns or f"{name}_0" in columns]
        if len(common) != 1:
            raise UserError(
                f"field is missing: {where} and truth={asked.truth} share "
                f"{', '.join(common) or 'no label'}: add field=NAME"
            )
        field = common[0]
    if field not in known:
        raise UserError(
            f"field={field}: truth={asked.truth} has no such label, only {', '.join(sorted(known))}"
        )
    places, predicted, absent = files.matched(truth.names, rows, where=where, skip=asked.skip)
    notes = [f"note: {absent:,} images without a prediction are left out"] if absent else []
    return truth, columns, field, places, predicted, notes


def _groups(truth: Truth, asked: Asked) -> Groups:
    if truth.shards is not None:
        return groups_of(truth.shards, asked.groups)
    if asked.groups:
        raise UserError("groups= takes labels of a packed set: give truth=SET")
    return Groups()


def _truth_of(truth: Truth, field: str, places: np.ndarray, where: str) -> np.ndarray:
    if truth.shards is not None:
        return np.asarray(truth.shards.labels[field])[places]
    return np.asarray(files.numbers(truth.columns, field, where=where)[places])


def _report(each: Evaluator, truth: Truth, asked: Asked, notes: list[str]) -> Report:
    each.typed = {MAX_GAP: asked.max_gap, "support": asked.support, "groups": ",".join(asked.groups)}
    report = each.report({}, gathered(each.rows(), Comm()), groups=_groups(truth, asked), rounds=asked.rounds)
    if asked.rounds:
        notes = [f"  [lo hi]: 95 %, {asked.rounds} resamples", *notes]
    report.notes += notes
    return report


def _score_values(asked: Asked) -> tuple[str, Report]:
    truth, columns, field, places, predicted, notes = _labelled(asked)
    where = f"predictions={asked.predictions}"
    files.need(columns, field, where=where)
    values = files.numbers(columns, field, where=where)
    if values.ndim != 1:
        raise UserError(f"{where}: {field} is not one number an image: use kind classes for logits")
    each = Values(field, unit="years" if field == "age" else "")
    each.begin(JudgedSet(lambda comm: [], truth.shards))
    each.keep(places, values[predicted], _truth_of(truth, field, places, f"truth={asked.truth}"))
    return field, _report(each, truth, asked, notes)


def _score_classes(asked: Asked) -> tuple[str, Report]:
    truth, columns, field, places, predicted, notes = _labelled(asked)
    where = f"predictions={asked.predictions}"
    kind = truth.shards.schema.fields[field] if truth.shards else None
    names = tuple(kind.names) if kind else _names(truth, columns, field)
    scores = files.wide(columns, field, where=where)
    each: Any = Bits(field, names=names) if kind and kind.kind == "bits" else Classes(field, names=names)
    each.begin(JudgedSet(lambda comm: [], truth.shards))
    if scores is None:
        codes = _codes(files.need(columns, field, where=where), names, field, where)
        if (codes < 0).any():
            raise UserError(f"{where}: {field}=-1 is not a class: predict one of {', '.join(names[:6])}")
        scores = HARD * np.eye(len(names))[codes]
        each.graded = False
        notes.append("note: the file names classes without probabilities: there is no calibration")
    elif isinstance(each, Classes) and (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        scores = np.log(np.maximum(scores, 1e-12))  # probabilities
    if scores is not None and names and names != tuple(map(str, range(len(names)))):
        if scores.shape[1] != len(names):
            raise UserError(
                f"{where}: {field} has {scores.shape[1]} columns, truth={asked.truth} names {len(names)} "
                f"({', '.join(names[:6])}): give a column for each, in this order"
            )
        if truth.shards is None:
            notes.append(f"note: {field}_0 ... are taken as {', '.join(names)}, in this order")
    if truth.shards is not None:
        labels = _truth_of(truth, field, places, "")
    else:
        labels = _codes(truth.columns[field], names, field, f"truth={asked.truth}")[places]
    each.keep(places, scores[predicted], labels)
    return field, _report(each, truth, asked, notes)


def _names(truth: Truth, columns: files.Columns, field: str) -> tuple[str, ...]:
    """Return the classes that two files name: numbers up to the largest, or texts in their order."""
    guessed = columns.get(field, ())
    named = () if isinstance(guessed, np.ndarray) else guessed  # else logits
    values = {str(value) for value in (*truth.columns[field], *named)}
    if all(value.isascii() and value.isdigit() and len(value) < 6 for value in values):
        return tuple(map(str, range(max(map(int, values)) + 1)))
    return tuple(sorted(values))


def _codes(values: Any, names: tuple[str, ...], field: str, where: str) -> np.ndarray:
    """Return the numbers of classes that are given by name, or as numbers; -1 stays unknown."""
    table = {name: number for number, name in enumerate(names)} | {"-1": -1}
    codes = []
    for value in values:
        text = str(value)
        code = table.get(text)
        if code is None and text.isascii() and text.isdigit() and int(text) < len(names):
            code = int(text)
        if code is None:
            raise UserError(f"{where}: {field}={text[:40]} is not a class: use {', '.join(names[:6])}")
        codes.append(code)
    return np.array(codes, np.int64)


def _score_verification(asked: Asked) -> tuple[str, Report]:
    where = f"predictions={asked.predictions}"
    columns = files.read_columns(asked.predictions, key="predictions")
    if "score" in columns:
        return "verification", _of_scores(asked, columns, where)
    embeddings = files.wide(columns, "embedding", where=where)
    if embeddings is None:
        raise UserError(f"{where} has neither `a`, `b`, `score` nor `image`, `embedding_0` ...: add them")
    if not (asked.truth / "manifest.json").is_file():
        raise UserError(f"truth={asked.truth} is not a packed set: embeddings are judged on one")
    shards = ShardSet.open(asked.truth, fields=("identity",))
    on = trial(shards, pairs=asked.pairs, skip=asked.skip)
    rows = files.rows_of(files.need(columns, files.IMAGE, where=where), where=where)
    wanted = [files.image_key(shards.member(int(row))) for row in on.ids]
    _, predicted, _ = files.matched(wanted, rows, where=where, skip=False)
    verdict, scores = score_run(embeddings[predicted], on, score=cosine, rounds=asked.rounds, seed=0)
    return "verification", _verified(verdict, scores, on.pairs, unit="cosine")


def _of_scores(asked: Asked, columns: files.Columns, where: str) -> Report:
    """Judge scores of pairs that a list names, in either order of the two images."""
    first, second = (files.need(columns, name, where=where) for name in "ab")
    scores = files.numbers(columns, "score", where=where)
    table: dict[tuple[str, str], int] = {}
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        pair = files.image_key(a), files.image_key(b)
        if table.setdefault(min(pair, pair[::-1]), row) != row:
            raise UserError(f"{where} scores the pair {a} {b} twice: give each once")
    listed = read_list(asked.truth).pairs
    names = [(files.image_key(shown(pair.first)), files.image_key(shown(pair.second))) for pair in listed]
    found = [table.get(min(pair, pair[::-1])) for pair in names]
    absent = sum(row is None for row in found)
    if absent and not asked.skip:
        missed = " ".join(names[found.index(None)])
        raise UserError(
            f"{where} lacks {absent} of the {len(listed)} pairs of truth={asked.truth}, first {missed}: "
            "score them, or type missing=skip"
        )
    kept = [
        (row, pair, name) for row, pair, name in zip(found, listed, names, strict=True) if row is not None
    ]
    same = np.array([pair.same for _, pair, _ in kept], bool)
    if not same.any() or same.all():
        raise UserError(f"{where} scores pairs of one kind only: the figures need both kinds")
    images, rows = np.unique([part for *_, name in kept for part in name], return_inverse=True)
    rows = rows.reshape(-1, 2)
    fold = np.array([pair.fold for _, pair, _ in kept], np.int64)
    counts = int(same.sum()), int((~same).sum())
    pairs = Pairs(rows[:, 0], rows[:, 1], same, fold, *counts, balanced=absent > 0 or counts[0] != counts[1])
    values = scores[[row for row, *_ in kept]]
    verdict = measure(values, pairs)
    if asked.rounds:
        people = np.unique([name.rpartition("/")[0] for name in images], return_inverse=True)[1]
        verdict.intervals = bootstrap(values, pairs, people, rounds=asked.rounds)
    report = _verified(verdict, values, pairs, unit="score of the file")
    report.notes += [f"note: {absent:,} listed pairs without a score are left out"] if absent else []
    return report


def _verified(verdict: VerificationResult, scores: np.ndarray, pairs: Pairs, *, unit: str) -> Report:
    from hpc.evaluation.verification_run import figures_table

    plain = verdict.plain()
    report = Report(
        verdict.scalars(), intervals=dict(verdict.intervals), facts={"thresholds": plain["thresholds"]}
    )
    report.tables["figures"] = figures_table([{"name": "these predictions"} | plain])
    report.title = f"{int(pairs.same.sum()):,} genuine and {int((~pairs.same).sum()):,} impostor pairs"
    limit = verdict.thresholds["eer"]
    report.notes = [f"threshold {limit:.4f} ({unit}), of these pairs"]

    def draw_roc(path: Path) -> None:
        roc.draw_roc(path, {"these predictions": (scores, pairs.same)}, title=path.parent.name)

    def draw_scores(path: Path) -> None:
        roc.draw_scores(path, scores, pairs.same, threshold=limit, title=path.parent.name, unit=unit)

    report.figures |= {"roc.png": draw_roc, "scores.png": draw_scores}
    return report


def _score_wider(asked: Asked) -> tuple[str, Report]:
    each = Wider()
    each.typed = {
        MAX_GAP: asked.max_gap,
        "support": asked.support,
        "missing": "skip" if asked.skip else "error",
    }
    return "wider", wider.score(each, asked.predictions, asked.truth, rounds=asked.rounds)


SCORERS: Mapping[str, Callable[[Asked], tuple[str, Report]]] = {
    "verification": _score_verification,
    "classes": _score_classes,
    "values": _score_values,
    "wider": _score_wider,
}
