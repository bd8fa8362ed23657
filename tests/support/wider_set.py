"""A small WIDER FACE as its .mat files state it, with detections, and its protocol as a plain loop."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

EVENTS = {"0--Parade": 9, "4--Dancing": 7}
LABELS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
MOST = {"blur": 3, "occlusion": 3}
Detections = dict[str, np.ndarray]  # event/name -> [k, 5] x, y, width, height, score


def cells(values: list) -> np.ndarray:
    """A column of cells, as MATLAB stores it."""
    column = np.empty((len(values), 1), object)
    for row, value in enumerate(values):
        column[row, 0] = value
    return column


def write_truth(folder: Path, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the four .mat files; return the faces of each image, [m, 4] x, y, width, height.

    Images differ in size of their crowd; one has no face, one none that a setting keeps, one has twins.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    faces: dict[str, np.ndarray] = {}
    for event, count in EVENTS.items():
        for number in range(count):
            many = 0 if number == 3 else int(rng.integers(1, 30))
            corner = rng.integers(0, 400, (many, 2))
            boxes = np.concatenate([corner, rng.integers(4, 80, (many, 2))], 1)
            if number == 2:
                boxes[-1] = boxes[0]
            faces[f"{event}/{event.replace('--', '_')}_{number}"] = boxes.astype(np.int32)
    by_event = [[name for name in faces if name.startswith(f"{event}/")] for event in EVENTS]
    common = {
        "event_list": cells([np.array([event]) for event in EVENTS]),
        "file_list": cells([cells([np.array([name.split("/")[1]]) for name in names]) for names in by_event]),
        "face_bbx_list": cells([cells([faces[name] for name in names]) for names in by_event]),
    }
    for label in LABELS:
        most = MOST.get(label, 2)
        drawn = {
            name: rng.integers(0, most, (len(boxes), 1)).astype(np.uint8) for name, boxes in faces.items()
        }
        common[f"{label}_label_list"] = cells([cells([drawn[name] for name in names]) for names in by_event])
    savemat(folder / "wider_face_val.mat", common)
    for setting, share in (("easy", 0.3), ("medium", 0.5), ("hard", 0.9)):
        kept = {}
        for name, boxes in faces.items():
            keeps = rng.random(len(boxes)) < (0 if name.endswith("_5") else share)
            kept[name] = np.flatnonzero(keeps)[:, None] + 1
        listed = cells([cells([kept[name] for name in names]) for names in by_event])
        savemat(folder / f"wider_{setting}_val.mat", common | {"gt_list": listed})
    return faces


def detect(faces: dict[str, np.ndarray], *, seed: int = 1) -> Detections:
    """Draw detections: faces moved a little, some of them twice, and clutter; scores with ties."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, boxes in faces.items():
        rows = np.repeat(boxes, rng.integers(0, 3, len(boxes)), axis=0).astype(np.float64)
        rows += rng.normal(0, 0.08, rows.shape) * rows[:, [2, 3, 2, 3]]
        clutter = rng.uniform(5, 300, (int(rng.integers(0, 12)), 4))
        rows = np.round(np.concatenate([rows, clutter]), 3)
        found[name] = np.concatenate([rows, rng.integers(1, 40, (len(rows), 1)) / 64], 1)
    return found


def plain_ap(faces: dict[str, np.ndarray], found: Detections, kept: dict[str, set[int]]) -> float:
    """The protocol for one setting as its description reads, image by image and threshold by threshold.

    kept: the numbers, from 0, of the faces of each image that the setting keeps.
    """
    scores = np.concatenate([rows[:, 4] for rows in found.values()])
    low, high = scores.min(), scores.max()
    totals = np.zeros((1000, 2))
    for name, truth in faces.items():
        if not len(truth):
            continue
        rows = found[name][np.argsort(-found[name][:, 4], kind="stable")]
        state, counts, recalled = [0] * len(truth), [], []
        for row in rows:
            overlaps = [plain_iou(row, face) for face in truth.astype(float)]
            best = int(np.argmax(overlaps))
            counts.append(1)
            if overlaps[best] >= 0.5:
                if best not in kept[name]:
                    counts[-1] = 0
                else:
                    state[best] = 1
            recalled.append(sum(state))
        for step in range(1000):
            reached = np.flatnonzero((rows[:, 4] - low) / (high - low) >= 1 - (step + 1) / 1000)
            if len(reached):
                totals[step] += sum(counts[: reached[-1] + 1]), recalled[reached[-1]]
    precision = [hits / many if many else 0.0 for many, hits in totals]
    recall = totals[:, 1] / sum(map(len, kept.values()))
    ap, before = 0.0, 0.0
    for step in range(1000):
        ap += (recall[step] - before) * max(precision[step:])
        before = recall[step]
    return ap


def plain_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of x, y, width, height by inclusive pixels."""
    ends = [(box[0], box[1], box[0] + box[2], box[1] + box[3]) for box in (one, other)]
    wide = min(ends[0][2], ends[1][2]) - max(ends[0][0], ends[1][0]) + 1
    high = min(ends[0][3], ends[1][3]) - max(ends[0][1], ends[1][1]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] + 1) * (box[3] + 1) for box in (one, other)]
    return wide * high / (sum(areas) - wide * high)
