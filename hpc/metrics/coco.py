"""AP and AR of detections by COCO's protocol, computed by pycocotools, or faster-coco-eval where it is there.

Both give the same digits. Truths that are ignored are handed over as crowds: a detection that lies in one by
the overlap that is asked for is neither right nor wrong, however many there are.
"""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.ragged import Ragged
from hpc.metrics import boxes as metrics

LIBRARIES = (("faster_coco_eval", "COCOeval_faster"), ("pycocotools", "COCOeval"))  # the first that is there
MOST = 100  # detections of an image, as COCO counts them
DIGITS = 12  # of a figure: the packages differ in the last one of float64
LIMITS = (1, 10)  # for which there are recalls too
SMALL, LARGE = 32**2, 96**2  # pixels: bounds of areas
BANDS = {"small": (0, SMALL), "medium": (SMALL, LARGE), "large": (LARGE, 1e10)}


@dataclass(frozen=True)
class Truths:
    """What there is to find in n images: m boxes."""

    boxes: Ragged  # float64 [m, 4]: x0, y0, x1, y1 in pixels of the file
    classes: np.ndarray  # int64 [m]
    ignored: np.ndarray  # bool [m]: neither a target nor a mistake: crowds, and what is not judged
    area: np.ndarray  # float64 [m]: pixels; COCO's are those of the mask

    def scaled(self, scale: np.ndarray) -> "Truths":
        """The same truths where images have other sizes; scale: [n], pixels by pixel."""
        each = scale[self.boxes.owners]
        return replace(self, boxes=scaled(self.boxes, scale), area=self.area * each**2)


def scaled(rows: Ragged, scale: np.ndarray) -> Ragged:
    """Return rows [m, 4 or more] whose boxes are those of images of another size; scale: [n]."""
    each = torch.from_numpy(np.asarray(scale, np.float64)[rows.owners])[:, None]
    return Ragged(torch.cat([rows.rows[:, :4] * each, rows.rows[:, 4:]], 1), rows.starts)


def library() -> str:
    """Name the package that computes, with its version."""
    from importlib.metadata import version

    name = _tools()[0]
    return f"{name} {version(name)}"


def _tools(name: str | None = None) -> tuple[str, Any, Any]:
    """Return the name of a package, its COCO and its COCOeval; None: the first of LIBRARIES that is there."""
    for package, evaluation in LIBRARIES:
        if name in (None, package):
            try:
                module = import_module(package if package.startswith("faster") else f"{package}.coco")
                judge = module if package.startswith("faster") else import_module(f"{package}.cocoeval")
            except ImportError:
                continue
            return package, module.COCO, getattr(judge, evaluation)
    raise ImportError(name or LIBRARIES[-1][0])


@dataclass(frozen=True)
class CocoFigures:
    """Figures of one judgement; NaN where there is nothing to find."""

    precision: np.ndarray  # [thresholds, recalls, classes, bands]; -1 where there is nothing to find
    recall: np.ndarray  # [thresholds, classes, bands, limits]
    bands: tuple[str, ...]
    limits: tuple[int, ...]

    def ap(self, *, threshold: float | None = None, band: str = "all", only: int | None = None) -> float:
        """Mean precision over recalls and classes; threshold: 0.5 to 0.95 (None = the mean over ten)."""
        part = self.precision[:, :, :, self.bands.index(band)]
        part = part if threshold is None else part[[round((threshold - 0.5) / 0.05)]]
        return _mean(part if only is None else part[:, :, [only]])

    def ar(self, *, limit: int | None = None, band: str = "all") -> float:
        """Mean of the largest recall over thresholds and classes, of `limit` detections (None = the most)."""
        place = len(self.limits) - 1 if limit is None else self.limits.index(limit)
        return _mean(self.recall[:, :, self.bands.index(band), place])

    def scalars(self) -> dict[str, float]:
        """The figures that papers print, by the names that they have here."""
        found = {"ap": self.ap(), "ap50": self.ap(threshold=0.5), "ap75": self.ap(threshold=0.75)}
        found |= {f"ap_{band}": self.ap(band=band) for band in BANDS}
        found |= {f"ar_{limit}": self.ar(limit=limit) for limit in self.limits}
        return found | {f"ar_{band}": self.ar(band=band) for band in BANDS}


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return round(float(known.mean()), DIGITS) if known.size else float("nan")


def judge(
    truths: Truths,
    found: Ragged,
    classes: int,
    *,
    most: int = MOST,
    bands: Mapping[str, tuple[float, float]] | None = None,
    package: str | None = None,
) -> CocoFigures:
    """Judge the detections `found` [k, 6] x0, y0, x1, y1, score, class of the images of `truths`.

    bands: name -> range of areas in pixels (None = all, small, medium, large). package: one of LIBRARIES.
    """
    _, coco, evaluation = _tools(package)
    named = dict(bands or {"all": (0, 1e10), **BANDS})
    with contextlib.redirect_stdout(io.StringIO()):  # both print what they do
        truth = _opened(coco, _truth_entries(truths), len(truths.boxes), classes)
        answer = _opened(coco, _found_entries(found), len(truths.boxes), classes)
        each = evaluation(truth, answer, "bbox")
        each.params.maxDets = sorted({limit for limit in LIMITS if limit < most} | {most})
        each.params.areaRng = [list(band) for band in named.values()]
        each.params.areaRngLbl = list(named)
        each.evaluate()
        each.accumulate()
    precision, recall = np.asarray(each.eval["precision"]), np.asarray(each.eval["recall"])
    return CocoFigures(precision[..., -1], recall, tuple(named), tuple(each.params.maxDets))


def _opened(coco: Any, entries: list[dict[str, Any]], images: int, classes: int) -> Any:
    opened = coco()
    opened.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(images)],
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
        "annotations": entries,
    }
    opened.createIndex()
    return opened


def _truth_entries(truths: Truths) -> list[dict[str, Any]]:
    sides = metrics.to_corner_and_size(truths.boxes.rows).tolist()
    columns = (truths.boxes.owners, truths.classes, truths.ignored, truths.area)
    return [
        {
            "id": number + 1,  # pycocotools takes 0 for `not matched`
            "image_id": image,
            "category_id": kind,
            "bbox": box,
            "area": area,
            "iscrowd": int(ignored),
        }
        for number, (box, image, kind, ignored, area) in enumerate(
            zip(sides, *(column.tolist() for column in columns), strict=True)
        )
    ]


def _found_entries(found: Ragged) -> list[dict[str, Any]]:
    rows: Tensor = found.rows.double()
    sides, areas = metrics.to_corner_and_size(rows[:, :4]).tolist(), metrics.area(rows[:, :4]).tolist()
    return [
        {
            "id": number + 1,
            "image_id": image,
            "category_id": int(kind),
            "bbox": box,
            "area": area,
            "score": score,
            "iscrowd": 0,
        }
        for number, (box, area, image, score, kind) in enumerate(
            zip(sides, areas, found.owners.tolist(), rows[:, 4].tolist(), rows[:, 5].tolist(), strict=True)
        )
    ]
