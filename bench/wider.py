"""The protocol of WIDER FACE against a plain loop over images, detections and thresholds, on drawn ones.

The loop is the one of `tests/support/wider_set.py`, but its overlaps of a detection with all faces are one
numpy expression, as people write it; it judges each setting on its own. Bar: >= 20 times as fast.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_shards.ragged import Ragged
from hpc.metrics import wider

IMAGES, BAR = 60, 20.0


def draw(images: int) -> tuple[wider.Faces, list[np.ndarray]]:
    """Faces and detections as in the official set: 12 faces and 92 detections an image in the mean."""
    rng = np.random.default_rng(0)
    boxes, found = [], []
    for _ in range(images):
        many = min(int(rng.geometric(1 / 12)), 300)
        corner = rng.uniform(0, 900, (many, 2))
        boxes.append(np.concatenate([corner, rng.uniform(6, 120, (many, 2))], 1))
        rows = np.repeat(boxes[-1], 2, axis=0)
        rows = rows + rng.normal(0, 0.1, rows.shape) * rows[:, [2, 3, 2, 3]]
        clutter = rng.uniform(5, 500, (int(rng.integers(40, 96)), 4))
        rows = np.concatenate([rows, clutter])
        found.append(np.column_stack([rows, rng.random(len(rows))]))
    total = sum(map(len, boxes))
    shares = zip(wider.SETTINGS, (0.2, 0.4, 0.8), strict=True)
    kept = {name: rng.random(total) < share for name, share in shares}
    names = [f"0--Drawn/{number}" for number in range(images)]
    return wider.Faces(names, Ragged.of_lists([torch.from_numpy(each) for each in boxes]), kept), found


def ours(faces: wider.Faces, found: list[np.ndarray]) -> list[float]:
    matches = wider.match(faces, Ragged.of_lists([torch.from_numpy(each) for each in found]))
    return [wider.judge(matches, faces.kept[name]).ap for name in wider.SETTINGS]


def plain(faces: wider.Faces, found: list[np.ndarray]) -> list[float]:
    scores = np.concatenate(found)[:, 4]
    low, high = scores.min(), scores.max()
    values = []
    for name in wider.SETTINGS:
        totals, count = np.zeros((1000, 2)), 0
        for image, rows in enumerate(found):
            truth = faces.boxes.of(image).numpy()
            kept = faces.kept[name][faces.boxes.starts[image] : faces.boxes.starts[image + 1]]
            count += int(kept.sum())
            rows = rows[np.argsort(-rows[:, 4], kind="stable")]
            state, counts, recalled = np.zeros(len(truth), int), np.ones(len(rows)), np.zeros(len(rows))
            for number, row in enumerate(rows):
                overlaps = overlap(row, truth)
                best = int(overlaps.argmax())
                if overlaps[best] >= 0.5:
                    if kept[best]:
                        state[best] = 1
                    else:
                        counts[number] = 0
                recalled[number] = state.sum()
            for step in range(1000):
                reached = np.flatnonzero((rows[:, 4] - low) / (high - low) >= 1 - (step + 1) / 1000)
                if len(reached):
                    totals[step] += counts[: reached[-1] + 1].sum(), recalled[reached[-1]]
        precision = np.divide(totals[:, 1], totals[:, 0], out=np.zeros(1000), where=totals[:, 0] > 0)
        recall, ap, before = totals[:, 1] / count, 0.0, 0.0
        for step in range(1000):
            ap += (recall[step] - before) * precision[step:].max()
            before = recall[step]
        values.append(float(ap))
    return values


def overlap(row: np.ndarray, truth: np.ndarray) -> np.ndarray:
    wide = np.minimum(row[0] + row[2], truth[:, 0] + truth[:, 2]) - np.maximum(row[0], truth[:, 0]) + 1
    high = np.minimum(row[1] + row[3], truth[:, 1] + truth[:, 3]) - np.maximum(row[1], truth[:, 1]) + 1
    both = np.maximum(wide, 0) * np.maximum(high, 0)
    return both / ((row[2] + 1) * (row[3] + 1) + (truth[:, 2] + 1) * (truth[:, 3] + 1) - both)


def main() -> int:
    torch.set_num_threads(1)
    faces, found = draw(IMAGES)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(3):
        for name, call in (("ours", ours), ("plain", plain)):
            began = time.process_time()
            values = call(faces, found)
            seconds[name].append(time.process_time() - began)
            if name == "ours":
                expected = values
            else:
                np.testing.assert_allclose(values, expected, atol=1e-12)
    fast, slow = (float(np.median(each)) for each in seconds.values())
    print(
        f"{IMAGES} images, {sum(map(len, found)):,} detections, {len(faces.boxes.rows):,} faces, CPU seconds"
    )
    print(f"ours       {fast:8.3f}")
    print(f"plain loop {slow:8.3f}   {slow / fast:.1f} x (bar {BAR:g})")
    print(json.dumps({"bench": "wider", "ours_s": fast, "plain_s": slow, "ratio": slow / fast}))
    return 0 if slow / fast >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
