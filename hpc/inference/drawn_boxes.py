"""What the detections of one image become: a record, the image with boxes drawn, a label file, crops.

`Task.render` of every detector is `rendered`; `detect.py` writes what it returns.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hpc.plots.boxes import RGB, draw_boxes
from hpc.task import Rendered

MARGIN = 0.2  # of a crop, on each side, as a share of its box


def class_names(fields: Mapping[str, Any], kind: str = "box_class") -> list[str]:
    """Return the names of a set's classes (`Task.known_fields`); none where they are not known."""
    return list(fields[kind].names) if kind in fields else []


def rendered(image: np.ndarray, found: np.ndarray, names: Sequence[str]) -> Rendered:
    """Return the record, the drawn image and the label file of detections.

    image: uint8 [h, w, 3], the pixels of the file. found: [k, 6] x0, y0, x1, y1 in them, score, class. The
    label file is YOLO's: class, centre x, centre y, width, height as shares of the image, and the score.
    """
    height, width = image.shape[:2]
    boxes, scores, kinds = found[:, :4].astype(np.float64), found[:, 4], found[:, 5].astype(int)
    called = [named(names, kind) for kind in kinds.tolist()]
    objects = [
        {"class": name, "score": round(float(score), 6), "box": [round(side, 3) for side in box]}
        for name, score, box in zip(called, scores, boxes.tolist(), strict=True)
    ]
    several = len(names) > 1
    captions = [
        f"{name} {score:.2f}" if several else f"{score:.2f}"
        for name, score in zip(called, scores.tolist(), strict=True)
    ]
    drawn = draw_boxes(image, boxes, [RGB[(3 + kind) % len(RGB)] for kind in kinds.tolist()], captions)
    shares = (boxes / [width, height, width, height]).tolist()
    lines = [
        f"{kind} {(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f} {score:.6f}"
        for kind, score, (x0, y0, x1, y1) in zip(kinds.tolist(), scores.tolist(), shares, strict=True)
    ]
    label = "".join(f"{line}\n" for line in lines)
    return Rendered({"objects": len(objects), "found": objects}, drawn, label)


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
