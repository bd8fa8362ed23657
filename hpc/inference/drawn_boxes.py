"""What the detections of one image become: a record, the image with boxes drawn, a label file, crops.

`Task.render` of every detector is `rendered`; `detect.py` writes what it returns.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hpc.plots.boxes import RGB, draw_boxes, draw_points
from hpc.task import Rendered

MARGIN = 0.2  # of a crop, on each side, as a share of its box


def class_names(fields: Mapping[str, Any], kind: str = "box_class") -> list[str]:
    """Return the names of a set's classes (`Task.known_fields`); none where they are not known."""
    return list(fields[kind].names) if kind in fields else []


def rendered(
    image: np.ndarray, found: np.ndarray, names: Sequence[str], points: np.ndarray | None = None
) -> Rendered:
    """Return the record, the drawn image and the label file of detections.

    image: uint8 [h, w, 3], the pixels of the file. found: [k, 6] x0, y0, x1, y1 in them, score, class.
    points: [k, p, 2] x, y of their landmarks in them (None = there are none). The label file is YOLO's:
    class, centre x, centre y, width, height as shares of the image, x and y of each landmark, and the score.
    """
    height, width = image.shape[:2]
    boxes, scores, kinds = found[:, :4].astype(np.float64), found[:, 4], found[:, 5].astype(int)
    called = [named(names, kind) for kind in kinds.tolist()]
    objects = [
        {"class": name, "score": round(float(score), 6), "box": [round(side, 3) for side in box]}
        for name, score, box in zip(called, scores, boxes.tolist(), strict=True)
    ]
    marks = np.zeros((len(boxes), 0, 2)) if points is None else points.astype(np.float64)
    if points is not None:
        for each, own in zip(objects, marks.tolist(), strict=True):
            each["points"] = [[round(x, 3), round(y, 3)] for x, y in own]
    several = len(names) > 1
    captions = [
        f"{name} {score:.2f}" if several else f"{score:.2f}"
        for name, score in zip(called, scores.tolist(), strict=True)
    ]
    drawn = draw_boxes(image, boxes, [RGB[(3 + kind) % len(RGB)] for kind in kinds.tolist()], captions)
    draw_points(drawn, marks)
    label = _label(kinds, scores, boxes / [width, height, width, height], marks / [width, height])
    return Rendered({"objects": len(objects), "found": objects}, drawn, label)


def _label(kinds: np.ndarray, scores: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> str:
    """The label file of boxes [k, 4] and landmarks [k, p, 2] in shares of the image."""
    places = points.reshape(len(boxes), 2 * points.shape[1])
    columns = (each.tolist() for each in (kinds, scores, boxes, places))
    lines = [
        " ".join(
            [
                str(kind),
                *(f"{side:.6f}" for side in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)),
                *(f"{place:.6f}" for place in marks),
                f"{score:.6f}\n",
            ]
        )
        for kind, score, (x0, y0, x1, y1), marks in zip(*columns, strict=True)
    ]
    return "".join(lines)


def named(names: Sequence[str], kind: int) -> str:
    """Return the name of a class, or its number where it has none."""
    return names[kind] if 0 <= kind < len(names) else str(kind)


def folder_of(names: Sequence[str], kind: int) -> str:
    """Return the name of a class as that of one folder: whatever a set calls it, it leads nowhere else."""
    name = named(names, kind).replace("/", "_").replace("\\", "_")
    return name if name.strip(". ") else f"class {kind}"


def crops(image: np.ndarray, found: np.ndarray, *, margin: float = MARGIN) -> Iterator[np.ndarray]:
    """Yield the part of `image` around each box with some margin, as far as the image goes."""
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in found[:, :4].astype(np.float64).tolist():
        wide, high = margin * (x1 - x0), margin * (y1 - y0)
        left, top = max(0, int(x0 - wide)), max(0, int(y0 - high))
        right = min(width, max(left + 1, int(np.ceil(x1 + wide))))
        bottom = min(height, max(top + 1, int(np.ceil(y1 + high))))
        yield image[top:bottom, left:right]
