"""What is stated of each box stays with it through every op that moves, hides, drops or joins boxes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.ops.affine import Affine
from data_shards.ops.base import run_ops
from data_shards.ops.cutmix import Cutmix
from data_shards.ops.erasing import Erasing
from data_shards.ops.hsv import Hsv
from data_shards.ops.mixup import Mixup
from data_shards.ops.mosaic import Mosaic
from data_shards.ragged import Ragged
from tests.support.samples import batch_of

N, SIZE, SHADES = 8, (64, 80), 3
KINDS = {"image": "image", "boxes": "boxes", "box_class": "class", "box_area": "value", "box_flags": "bits"}
CHAINS = {
    "mosaic": [Mosaic(unit=4)],
    "affine": [Affine(degrees=20, scale=(0.6, 1.4), shift=0.3)],
    "mosaic, affine": [Mosaic(unit=4), Affine(scale=(0.7, 1.5), shift=0.2)],
    "cutmix": [Cutmix(share=1.0, unit=4)],
    "colour": [Hsv(), Erasing(share=0.5)],
}


def boxes_of(slot: int) -> tuple[Tensor, Tensor]:
    """(boxes [k, 4], which of red, green and blue each is [k]): none for every fifth slot."""
    rng = np.random.default_rng(slot)
    count = 0 if slot % 5 == 4 else int(rng.integers(1, 4))
    low = np.stack([np.arange(count) * 26 + rng.integers(1, 6, count), rng.integers(2, 30, count)], axis=1)
    sides = rng.integers(14, 19, (count, 2))
    boxes = np.concatenate([low, low + sides], axis=1)
    return torch.from_numpy(boxes).float(), torch.from_numpy(rng.permutation(SHADES)[:count])


def batch() -> Batch:
    """Black images with up to three boxes of pure colours; companions state colour, area and flags."""
    image, lists = torch.full((N, 3, *SIZE), -1.0), []
    for slot in range(N):
        boxes, colours = boxes_of(slot)
        for (x0, y0, x1, y1), colour in zip(boxes.int().tolist(), colours.tolist(), strict=True):
            image[slot, colour, y0:y1, x0:x1] = 1
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        flags = torch.stack([colours == 1, colours == 2], dim=1).long()
        lists.append((boxes, colours, area, flags))
    labels = dict(zip(list(KINDS)[1:], map(Ragged.of_lists, zip(*lists, strict=True)), strict=True))
    return batch_of({"image": image}, labels, KINDS)


@pytest.mark.parametrize("chain", CHAINS)
def test_each_box_shows_the_colour_that_its_rows_state(chain):
    after, checked, gone = run_ops(CHAINS[chain], batch()), 0, 0
    labels = after.labels
    for name in ("box_class", "box_area", "box_flags"):
        np.testing.assert_array_equal(labels[name].starts, labels["boxes"].starts)
    for slot in range(N):
        rows = [labels[name].of(slot) for name in list(KINDS)[1:]]
        for box, colour, area, flags in zip(*rows, strict=True):
            assert flags.tolist() == [int(colour == 1), int(colour == 2)]
            assert 14 * 14 <= area <= 18 * 18
            if not box.any():
                gone += 1
                continue
            x0, y0, x1, y1 = box.round().int().tolist()
            light = after.images["image"][slot, :, y0:y1, x0:x1].add(1).mean(dim=(1, 2))
            assert light[colour] > 0.2, (slot, box, colour, light)
            assert light[colour] >= light.max() - 1e-6 or chain != "affine"
            checked += 1
    assert checked > N // 2
    assert gone or chain in ("colour", "cutmix")


def test_mixup_joins_the_rows_of_both_images():
    after = run_ops([Mixup(alpha=8.0, unit=4)], batch())
    np.testing.assert_array_equal(after.labels["box_class"].starts, after.labels["boxes"].starts)
    for slot in range(N):
        for box, colour in zip(
            after.labels["boxes"].of(slot), after.labels["box_class"].of(slot), strict=True
        ):
            x0, y0, x1, y1 = box.int().tolist()
            assert after.images["image"][slot, colour, y0:y1, x0:x1].min() > -0.9
