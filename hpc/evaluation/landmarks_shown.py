"""Errors of the landmarks of what a detector has found, for the report of `Detections`."""

from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.ragged import Ragged
from data_shards.sampling.placed import UNKNOWN_POINT
from hpc.evaluation.base import Report, Rows, Table, check_finite
from hpc.metrics import coco, landmarks, matched

FIELD, OUTPUT = "box_points", "landmarks"  # the label of a set, and what `predict` answers
EYES = ("left_eye", "right_eye")
DIGITS = 4


def states(shards: Any) -> bool:
    """Whether a set states landmarks of its boxes."""
    return FIELD in shards.ragged


def check_names(shards: Any, task: Any) -> None:
    """Raise UserError where the set states other landmarks than the run has learnt, or in another order."""
    field, known = shards.schema.fields[FIELD], tuple(getattr(task, "points", ()))
    if known and tuple(field.names) != known:
        raise UserError(
            f"{shards.folder} has the landmarks {', '.join(field.names) or 'without names'}, the run "
            f"{', '.join(known)}: judge a set of the same ones"
        )


def add_landmarks(
    report: Report,
    shards: Any,
    ids: np.ndarray,
    truths: coco.Truths,
    pairs: matched.Matched,
    rows: Rows,
) -> None:
    """Add `landmark_nme`, by the diagonal, and `landmark_nme_eyes`, over all objects that were found.

    Where no landmark of them is known nothing is added.

    ids: [n], the samples of `truths`. pairs: of the detections whose landmarks are in `rows`. Raises
    UserError where the set has another number of landmarks.
    """
    said = rows[OUTPUT]
    assert isinstance(said, Ragged)
    check_finite(OUTPUT, said.rows.numpy())
    field = shards.schema.fields[FIELD]
    truth = np.asarray(shards.ragged[FIELD].rows_of(ids)[0], np.float64).reshape(-1, *field.shape)
    if truth.shape[1:] != said.rows.shape[1:]:
        raise UserError(
            f"{OUTPUT}: the run has {said.rows.shape[1]} of each object, {shards.folder} has {truth.shape[1]}"
        )
    if field.unknown is not None:
        truth[(truth == field.unknown).all(axis=2)] = UNKNOWN_POINT
    names = [*field.names] or [str(number) for number in range(truth.shape[1])]
    eyes = tuple(map(names.index, EYES)) if set(EYES) <= set(names) else None
    hit = np.flatnonzero(pairs.truth >= 0)
    at = pairs.truth[hit]
    found = landmarks.errors(
        said.rows.numpy()[hit],
        truth[at],
        truths.boxes.rows.numpy()[at],
        eyes=eyes,  # type: ignore[arg-type]
    )
    known = np.isfinite(found.distance)
    if not known.any():
        return
    figures = {"landmark_nme": found.by_diagonal(), "landmark_nme_eyes": found.by_eyes()}
    report.scalars |= {name: value for name, value in figures.items() if np.isfinite(value)}
    cells = [
        [name, round(float(error), DIGITS) if np.isfinite(error) else None, int(count)]
        for name, error, count in zip(names, found.of_each(), known.sum(axis=0), strict=True)
    ]
    note = (
        f"mean distance as a share of the box's diagonal, of {int(known.any(axis=1).sum()):,} objects that "
        f"were found (IoU {matched.OVERLAP:g}); landmark_nme_eyes: as a share of the distance of the eyes"
    )
    report.tables["landmarks"] = Table(("landmark", "error", "known"), cells, note)
