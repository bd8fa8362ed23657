"""Landmarks of boxes move with the pixels that they mark, through every op and the decoder's mirror."""

import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.loading.labels import carry
from data_shards.ops.affine import Affine
from data_shards.ops.base import run_ops
from data_shards.ops.mixup import Mixup
from data_shards.ops.mosaic import Mosaic
from data_shards.ops.resize import Resize
from data_shards.ragged import Ragged
from data_shards.sampling.view import View, draw
from data_shards.sources.boxes import FIVE_POINTS, box_fields
from tests.support.samples import batch_of

N, SIZE, SHADES, DOT = 8, (96, 96), 3, 6
KINDS = {"image": "image", "boxes": "boxes", "box_points": "points"}
CHAINS = {
    "mosaic": [Mosaic(scale=(0.7, 1.2), unit=4)],
    "affine": [Affine(degrees=20, scale=(0.7, 1.4), shift=0.2)],
    "all": [Mosaic(scale=(0.8, 1.4), unit=4), Affine(scale=(0.8, 1.2), shift=0.1), Resize((128, 128))],
}


def batch() -> Batch:
    """Black images with two boxes, each with three dots, one red, one green, one blue; some are unknown."""
    image, lists = torch.full((N, 3, *SIZE), -1.0), []
    for slot in range(N):
        rng = np.random.default_rng(slot)
        corner = torch.from_numpy(rng.integers(2, 10, (2, 2)) + np.array([[0, 0], [44, 44]])).float()
        boxes = torch.cat([corner, corner + 36], 1)
        places = torch.tensor([[6.0, 8.0], [27.0, 9.0], [16.0, 28.0]])
        points = corner[:, None] + places
        for marks in points.long().tolist():
            for colour, (x, y) in enumerate(marks):
                image[slot, colour, y - DOT // 2 : y + DOT // 2, x - DOT // 2 : x + DOT // 2] = 1
        points[0, slot % 3] = -1.0
        lists.append((boxes, points))
    labels = dict(zip(list(KINDS)[1:], map(Ragged.of_lists, zip(*lists, strict=True)), strict=True))
    return batch_of({"image": image}, labels, KINDS)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_landmark_stays_on_its_dot(chain):
    after, checked = run_ops(CHAINS[chain], batch()), 0
    height, width = after.size
    boxes, points = after.labels["boxes"], after.labels["box_points"]
    np.testing.assert_array_equal(points.starts, boxes.starts)
    assert points.rows.shape[1:] == (SHADES, 2)
    for slot in range(N):
        for marks in points.of(slot):
            for colour, (x, y) in enumerate(marks.tolist()):
                if (x, y) == (-1, -1) or not (1 <= x < width - 1 and 1 <= y < height - 1):
                    continue
                seen = after.images["image"][slot, :, int(y), int(x)]
                assert seen[colour] > 0.5, (slot, colour, x, y, seen)
                assert seen.argmax() == colour
                checked += 1
    assert checked > 3 * N
    assert ((points.rows == -1).all(-1)).sum() >= N  # an unknown one stays unknown


def test_mixup_joins_landmarks_with_their_boxes():
    before = batch()
    after = run_ops([Mixup(alpha=8.0, unit=4)], before)
    np.testing.assert_array_equal(after.labels["box_points"].starts, after.labels["boxes"].starts)

    def pairs(labels: dict) -> set:
        boxes, points = labels["boxes"].rows, labels["box_points"].rows.flatten(1)
        return set(map(tuple, torch.cat([boxes, points], 1).tolist()))

    assert pairs(after.labels) == pairs(before.labels)
    assert len(after.labels["boxes"].rows) == 2 * len(before.labels["boxes"].rows)


def test_left_and_right_change_places_in_the_mirror_images_of_the_decoder():
    field = box_fields(("face",), points=FIVE_POINTS)["box_points"]
    marks = np.array([[[10, 20], [30, 20], [-1, -1], [14, 40], [26, 41]]], np.float32)
    sides = np.array([50]), np.array([80])
    view = View((100, 100), fit="contain", flip=1.0)
    placed = draw(view, 0, np.arange(1), 0, *sides).placed
    assert placed.flip.all()
    found = carry(field, marks, np.zeros(1, np.int64), placed)[0]
    # 80 pixels become 100, the width of 50 becomes 62 or 63 in the middle: 10 is seen at right
    left, right, nose, low, high = found.tolist()
    assert left[0] < right[0]
    assert low[0] < high[0]
    assert nose == [-1, -1]
    back = placed.undo_points(found[None].astype(np.float64), mirror=np.array([1, 0, 2, 4, 3]))[0]
    np.testing.assert_allclose(back, marks[0], atol=1e-4)
    straight = placed.points(np.array([[30.0, 20.0]]))[0]
    assert left == pytest.approx(straight.tolist())
