"""Figures of clips or people: the probabilities of their images averaged, one decision each."""

import numpy as np

from hpc.evaluation.base import Report, Table
from hpc.evaluation.by_group import figure
from hpc.evaluation.logits import finite, single
from hpc.metrics import bootstrap
from hpc.metrics.bootstrap import Figures
from hpc.metrics.classification import softmax
from hpc.metrics.decisions import ClassFigures

TITLE = "by identity"


def averaged(
    logits: np.ndarray, labels: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return units [u], log probabilities [u, k], labels [u], and how many units of two labels are left out.

    logits [n, k], labels [n], units [n]: of the images.
    """
    names, code = np.unique(units, return_inverse=True)
    count = np.bincount(code, minlength=len(names))
    shares = softmax(logits)
    mean = (
        np.stack([np.bincount(code, column, minlength=len(names)) for column in shares.T], 1) / count[:, None]
    )
    low, high = np.full(len(names), np.iinfo(np.int64).max), np.full(len(names), -1)
    np.minimum.at(low, code, labels)
    np.maximum.at(high, code, labels)
    clear = low == high
    return names[clear], np.log(np.maximum(mean[clear], 1e-300)), low[clear], int((~clear).sum())


def add_units(
    report: Report,
    logits: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    *,
    shown: tuple[str, ...],
    rounds: int,
) -> None:
    """Add the figures `shown` by unit, as `<figure>_by_identity`, and their table."""
    names, shares, truth, unclear = averaged(logits, labels, units)
    figures: Figures = ClassFigures(truth, shares.argmax(1), logits.shape[1], shares)
    found = finite(single(bootstrap.flat(figures, np.arange(len(names)))))
    spread = bootstrap.intervals(figures, np.arange(len(names)), rounds=rounds)
    report.scalars |= {f"{name}_by_identity": found[name] for name in shown if name in found}
    report.intervals |= {f"{name}_by_identity": spread[name] for name in shown if name in spread}
    note = f"{len(names):,} identities (people or clips), the probabilities of their images averaged"
    if unclear:
        note += f"; {unclear:,} with images of two classes are left out"
    cells = [[name, figure(found, spread, name)] for name in shown]
    report.tables[TITLE] = Table(("figure", "all"), cells, note)
