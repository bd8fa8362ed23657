"""The official protocol of WIDER FACE (Yang et al. 2016, and the evaluation tools of the set): AP of faces.

- Scores are brought to [0, 1] by the least and the largest one of all detections of the set.
- By falling score, each detection of an image belongs to the face that it overlaps most, by any 0.5 of
  intersection over union; pixels count inclusively (sides + 1).
- A setting (easy, medium, hard) keeps some faces. A detection of another face does not count; the first one
  of a kept face is right; further ones of it, and those of no face, are wrong.
- Precision and recall are taken at 1,000 thresholds, 0.999, 0.998 ... 0 of the scores, over the whole set;
  AP is the area below them with monotonous precision.
- An image without any face, also without an ignored one, is not judged.

Whose face a detection is does not depend on the setting, so images are matched once for all. Files:
`wider_files.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from data_shards.ragged import Ragged
from hpc.metrics.average_precision import Curve, area
from hpc.metrics.boxes import from_corner_and_size, iou

SETTINGS = ("easy", "medium", "hard")
THRESHOLDS = 1000
OVERLAP = 0.5
BLOCK = 1 << 15  # overlaps of an image that are held at a time: they stay in the cache of the processor


@dataclass(frozen=True)
class Faces:
    """The truth of n images: m faces, which of them each setting keeps, and what is known of them."""

    names: list[str]  # [n] `event/name`, without a suffix
    boxes: Ragged  # float64 [m, 4]: x, y, width, height in pixels
    kept: Mapping[str, np.ndarray]  # setting -> bool [m]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)  # blur, occlusion ... -> int [m]

    def take(self, images: np.ndarray) -> "Faces":
        """Some of the images [k], in the order given."""
        rows = np.concatenate(
            [
                np.zeros(0, np.int64),
                *(np.arange(self.boxes.starts[at], self.boxes.starts[at + 1]) for at in images),
            ]
        )
        return Faces(
            [self.names[at] for at in images],
            self.boxes.take(images),
            {name: kept[rows] for name, kept in self.kept.items()},
            {name: label[rows] for name, label in self.labels.items()},
        )


@dataclass(frozen=True)
class Matches:
    """The detections of all judged images, image by image by falling score."""

    scores: np.ndarray  # float64 [k], in [0, 1] over the whole set
    faces: np.ndarray  # int64 [k]: the face of each, a row of `Faces.boxes`; -1: of none
    images: np.ndarray  # int64 [k]

    def right(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which detections count, and which are right, bool [k] both; kept: bool [m], the faces."""
        of_kept = (self.faces >= 0) & kept[self.faces] if len(kept) else self.faces >= 0
        rows = np.flatnonzero(of_kept)
        right = np.zeros(len(self.faces), bool)
        right[rows[np.unique(self.faces[rows], return_index=True)[1]]] = True
        return (self.faces < 0) | of_kept, right


@dataclass(frozen=True)
class Result:
    """The figure of one setting."""

    ap: float
    curve: Curve  # at THRESHOLDS thresholds
    faces: int  # that the setting keeps


def match(faces: Faces, found: Ragged) -> Matches:
    """Match the detections of each image, `found`: float64 [k, 5] x, y, width, height, score."""
    scores, places, counts = [np.zeros(0)], [np.zeros(0, np.int64)], np.zeros(len(faces.names), np.int64)
    for image in range(len(faces.names)):
        truth = from_corner_and_size(faces.boxes.of(image))
        if not len(truth):
            continue
        rows = found.of(image)
        rows = rows[rows[:, 4].argsort(descending=True, stable=True)]
        counts[image] = len(rows)
        scores.append(rows[:, 4].numpy())
        for part in from_corner_and_size(rows[:, :4]).split(max(1, BLOCK // len(truth))):
            overlap, face = iou(part, truth, extra=1).max(1)
            places.append(torch.where(overlap >= OVERLAP, face + int(faces.boxes.starts[image]), -1).numpy())
    images = np.repeat(np.arange(len(counts)), counts)
    return Matches(normalised(np.concatenate(scores), found), np.concatenate(places), images)


def normalised(scores: np.ndarray, found: Ragged) -> np.ndarray:
    """Bring scores [k] to [0, 1] by the range of those of all `found`; where all are equal, to 1."""
    if not len(found.rows):
        return scores
    low, high = (float(each) for each in found.rows[:, 4].aminmax())
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def judge(matches: Matches, kept: np.ndarray) -> Result:
    """Return the figure of the setting that keeps the faces `kept` bool [m]."""
    counted, right = matches.right(kept)
    total = int(kept.sum())
    proposals, found = (_by_threshold(matches.scores[rows]).cumsum() for rows in (counted, right))
    precision = np.divide(found, proposals, out=np.zeros(THRESHOLDS), where=proposals > 0)
    recall = found / max(total, 1)
    return Result(float(area(recall, precision)), Curve(_thresholds(), precision, recall), total)


def resampled(faces: Faces, matches: Matches, kept: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the figure of a setting in many resamples, [rounds], NaN where none of its faces is drawn.

    weight: [n, rounds] float32, how often each image is drawn (`bootstrap.weights`).
    """
    counted, right = matches.right(kept)
    times = weight.T
    # Whole numbers far below 2^24: float32 sums are exact in any order.
    proposals, found = (
        np.cumsum(times @ _by_image(matches, rows, len(weight)), axis=1, dtype=np.float64)
        for rows in (counted, right)
    )
    owners = faces.boxes.owners[kept]
    total = times.astype(np.float64) @ np.bincount(owners, minlength=len(weight))
    precision = np.divide(found, proposals, out=np.zeros_like(found), where=proposals > 0)
    recall = np.divide(found, total[:, None], out=np.full_like(found, np.nan), where=total[:, None] > 0)
    return area(recall, precision)


def _thresholds() -> np.ndarray:
    """Return the thresholds, falling: 0.999, 0.998 ... 0."""
    return 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS


def _steps(scores: np.ndarray) -> np.ndarray:
    """Return the place of the first threshold that each score reaches."""
    rising = _thresholds()[::-1]
    return THRESHOLDS - np.searchsorted(rising, scores, side="right")


def _by_threshold(scores: np.ndarray) -> np.ndarray:
    """Return how many scores reach each threshold first, [THRESHOLDS]."""
    return np.bincount(_steps(scores), minlength=THRESHOLDS)


def _by_image(matches: Matches, rows: np.ndarray, images: int) -> np.ndarray:
    """Return the same of each image for the detections `rows` bool [k]: float32 [images, THRESHOLDS]."""
    at = matches.images[rows] * THRESHOLDS + _steps(matches.scores[rows])
    counts = np.bincount(at, minlength=images * THRESHOLDS)
    return counts.reshape(images, THRESHOLDS).astype(np.float32)
