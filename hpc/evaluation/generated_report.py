"""The report of generated images: figures, yardsticks, and the nearest real images beside samples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.batch import IMAGE
from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from data_shards.sampling.view import View
from hpc.evaluation.base import Report, Table, check_finite
from hpc.evaluation.feature_words import distance_name
from hpc.evaluation.features import FeatureNetwork
from hpc.metrics import generated as metrics
from hpc.plots.heat import Cell, draw_sheet, enlarged

SHOWN = 12  # samples in the picture of nearest images
NEIGHBOURS = 3
MOST = 10_000  # images of each side for precision and recall, whose time is quadratic
DIGITS = 8  # significant ones of a figure: the last ones depend on the threads of a matrix product
CELL = 96  # pixels
TRAINING = "training"  # the name of the real images of the run's training set


@dataclass(frozen=True)
class Judged:
    """What has been gathered: features of all images, and the first samples."""

    extractor: FeatureNetwork
    side: int
    features: np.ndarray  # [n, d] of the generated images
    probable: np.ndarray | None  # [n, k] of the generated images, where the extractor has classes
    real: dict[str, dict[str, np.ndarray]]  # name -> ids [m], features [m, d]
    shown: list[np.ndarray]  # uint8 [side, side, 3]
    near: Any  # the ShardSet of `training`, or else of `real` (None = there is none)
    near_is_training: bool = False  # whether the run was trained on it


def compose(judged: Judged) -> Report:
    """Compute all figures. UserError where images are too few or not finite."""
    check_finite("image", judged.features)
    name = distance_name(judged.extractor.name)
    report = Report()
    rows: list[list[Any]] = []
    if (real := judged.real.get("real")) is not None:
        _check_count(len(judged.features), len(real["features"]))
        found = _against(judged.features, real["features"], name)
        report.scalars |= found
        rows.append(["generated", *found.values(), len(judged.features)])
        rows += _yardsticks(judged.real, name)
        columns = ("against the real images", *found, "images")
        report.tables["distances"] = Table(columns, rows, _note(judged, len(real["features"])))
    if judged.probable is not None:
        score, deviation = (_rounded(each) for each in metrics.inception_score(judged.probable))
        # as FID, the name belongs to one network
        word = "inception_score" if judged.extractor.is_inception else "class_score"
        report.scalars[word] = score
        note = f"exp of the mean divergence of classes by {judged.extractor.name}, over 10 parts"
        report.tables["scores"] = Table(("score", "mean", "deviation"), [[word, score, deviation]], note)
    near = judged.real.get(TRAINING) or judged.real.get("real")
    if near is not None and judged.shown:
        _add_neighbours(report, judged, near)
    report.facts = {
        "extractor": judged.extractor.name,
        "extractor_sha256": judged.extractor.digest,
        "resize": f"to {judged.side}, then {judged.extractor.rule}",
    }
    return report


def _check_count(generated: int, real: int) -> None:
    if generated <= metrics.NEAREST or real <= metrics.NEAREST:
        raise UserError(
            f"{generated} generated and {real} real images are too few, over {metrics.NEAREST} of each are "
            "needed: type a larger samples=, or give a larger set"
        )


def _against(found: np.ndarray, real: np.ndarray, name: str) -> dict[str, float]:
    distance = metrics.frechet(metrics.moments(found), metrics.moments(real))
    kernel, _ = metrics.kid(found, real)
    precision, recall = metrics.precision_recall(real[:MOST], found[:MOST])
    figures = {name: distance, "kid": kernel, "precision": precision, "recall": recall}
    return {key: _rounded(value) for key, value in figures.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _yardsticks(real: dict[str, dict[str, np.ndarray]], name: str) -> list[list[Any]]:
    """Return rows of what other images reach, such as blurred ones, and one half against the other."""
    rows: list[list[Any]] = []
    others = {key: part["features"] for key, part in real.items() if key not in ("real", "training")}
    if not others:
        return rows
    features = real["real"]["features"]
    one, other = features[::2], features[1::2]
    if min(len(one), len(other)) > metrics.NEAREST:
        rows.append(["real, one half by the other", *_against(one, other, name).values(), len(one)])
    for key, part in others.items():
        rows.append([f"real, {key}", *_against(part, features, name).values(), len(part)])
    return rows


def _note(judged: Judged, count: int) -> str:
    network = judged.extractor
    what = "FID" if network.is_inception else "Frechet distance (not FID, which is of Inception-v3 alone)"
    return (
        f"{what} by {network.name}, sha256 {network.digest[:12]}; all images to {judged.side} pixels, then "
        f"{network.rule}; {count:,} real images; KID: mean of 100 subsets of at most 1,000"
    )


def _add_neighbours(report: Report, judged: Judged, near: dict[str, np.ndarray]) -> None:
    count = len(judged.shown)
    found, far = metrics.neighbours(judged.features[:count], near["features"], count=NEIGHBOURS)
    ids = near["ids"][found]
    where = "training" if judged.near_is_training else "judged"
    names = [[judged.near.member(int(row)).removesuffix(".jpg") for row in line] for line in ids]
    report.tables["nearest"] = Table(
        ("sample", *(f"nearest {nth}" for nth in range(1, ids.shape[1] + 1)), "distance"),
        [[row, *line, _rounded(away[0])] for row, (line, away) in enumerate(zip(names, far, strict=True))],
        f"nearest of {len(near['ids']):,} images of the {where} set {judged.near.name}, by features of "
        f"{judged.extractor.name}",
    )
    report.figures["nearest.png"] = _sheet(judged, ids, far, where)


def _sheet(judged: Judged, ids: np.ndarray, far: np.ndarray, where: str) -> Callable[[Path], None]:
    def draw(path: Path) -> None:
        images = _decoded(judged.near, np.unique(ids), judged.side)
        cells = []
        for sample, line, away in zip(judged.shown, ids, far, strict=True):
            row = [enlarged(image, CELL) for image in (sample, *(images[int(each)] for each in line))]
            cells.append(Cell(np.hstack(row), ["distances " + ", ".join(f"{each:.3g}" for each in away)]))
        draw_sheet(
            path, cells, title=f"samples, each beside its nearest images of the {where} set", columns=2
        )

    return draw


def _decoded(shards: Any, ids: np.ndarray, side: int) -> dict[int, np.ndarray]:
    loader = EvalLoader(shards, rank=0, world=1, batch=64, view=View((side, side)), threads=1, ids=ids)
    return {
        int(row): image
        for batch in loader
        for row, image in zip(
            batch.ids[:, 0], batch.images[IMAGE].permute(0, 2, 3, 1).contiguous().numpy(), strict=True
        )
    }
