"""Figures of masks: by hand, against plain loops, and at the picture's own size."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from data_shards.sampling.view import View, draw
from hpc.metrics import bootstrap
from hpc.metrics import segmentation as metrics


def square(low: int, high: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[low:high, low:high] = 1
    return mask


def random_masks(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, classes, (2, 9, 11)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, found


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_are_those_of_scikit_learn(seed):
    truth, found = random_masks(seed)
    iou, dice = metrics.overlaps(metrics.pixel_counts(truth, found, 3))
    known = truth != 255
    np.testing.assert_allclose(iou, jaccard_score(truth[known], found[known], average=None))
    np.testing.assert_allclose(dice, f1_score(truth[known], found[known], average=None))


def test_boundaries_match_within_the_reach_and_no_further():
    """A square of 20 pixels, moved by one in 40 x 40: all within 1 pixel of the other but two corners."""
    truth, found = square(10, 30), np.roll(square(10, 30), 1, axis=1)
    assert metrics.boundaries(truth, truth, 2).tolist() == [[76, 76, 76, 76]]
    assert metrics.boundaries(truth, found, 2)[0, [0, 2]].tolist() == [76, 76]
    assert metrics.boundaries(truth, found, 2)[0, 1] == 76
    far = metrics.boundaries(truth, square(15, 25), 2)
    assert far[0].tolist() == [36, 0, 76, 0]
    assert metrics.boundary_f(far).tolist() == [0]
    assert metrics.boundary_f(metrics.boundaries(truth, truth, 2)).tolist() == [1]


def test_the_edge_of_the_picture_and_unknown_pixels_are_no_boundary():
    mask = np.ones((20, 20), np.uint8)
    assert metrics.boundaries(mask, mask, 2).tolist() == [[0, 0, 0, 0]]
    mask[:, 10:] = 255
    assert metrics.boundaries(mask, np.ones_like(mask), 2).tolist() == [[0, 0, 0, 0]]
    assert np.isnan(metrics.boundary_f(np.zeros((1, 4)))).all()


def figures(pairs):
    counts = np.stack([metrics.pixel_counts(*pair, 2) for pair in pairs])
    edges = np.stack([metrics.boundaries(*pair, 2) for pair in pairs])
    return metrics.SegmentFigures(counts, edges)


def test_empty_masks_are_judged_by_themselves():
    empty = np.zeros((40, 40), np.uint8)
    pairs = [(square(10, 30), square(10, 30)), (empty, empty), (empty, square(0, 20))]
    each = figures(pairs)
    assert each.empty.tolist() == [False, True, True]
    found = {name: one.values[0, 0] for name, one in bootstrap.flat(each, np.arange(3)).items()}
    assert found["iou_picture"] == found["boundary_f"] == 1
    assert found["empty_right"] == 0.5
    assert found["iou"] == pytest.approx(400 / 800)  # false pixels in an empty picture count here
    assert found["accuracy"] == pytest.approx(1 - 400 / 4800)
    assert np.isnan(each.by_picture()["iou"][1:]).all()


def test_a_round_of_the_bootstrap_is_the_figures_of_its_pictures():
    pairs = [random_masks(seed, 2) for seed in range(6)]
    drawn = np.array([0, 0, 3, 5, 5, 5])
    weight = np.bincount(drawn, minlength=6)[:, None].astype(np.float32)
    once = figures(pairs)(np.arange(6), weight)
    again = figures([pairs[row] for row in drawn])(np.arange(6), np.ones((6, 1), np.float32))
    for name, measured in once.items():
        np.testing.assert_allclose(measured.values, again[name].values, err_msg=name)


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_a_mask_comes_back_to_its_picture(fit):
    """What a flipped, cut and enlarged picture showed is where it was; what it did not show is unknown."""
    truth = np.zeros((60, 90), np.uint8)
    truth[20:45, 25:70] = 1
    view = View((120, 120), fit=fit, crop_area=(0.5, 0.9), flip=1.0)
    placed = draw(view, 3, np.array([5]), 0, np.array([90]), np.array([60])).placed
    seen = placed.mask(truth, 0)
    chances = np.stack([seen != 1, seen == 1]).astype(np.float32)
    back = metrics.at_own_size(chances, (90, 60), placed.window(0))
    known = back != 255
    assert known.mean() > 0.2
    assert (back[known] == truth[known]).mean() > 0.97
    assert set(np.unique(back)) <= {0, 1, 255}


def test_a_mask_of_another_size_is_brought_to_that_of_its_picture():
    small = square(1, 3, side=4)
    np.testing.assert_array_equal(metrics.of_size(small, (12, 8)), small.repeat(2, 0).repeat(3, 1))


def test_a_picture_that_one_class_fills_is_not_judged_by_boundaries():
    full = np.ones((1, 2, 2), np.int64) * [[[0, 0], [0, 50]]]
    none, some = np.zeros((1, 1, 4), np.int64), np.array([[[9, 9, 9, 9]]])
    alone = metrics.SegmentFigures(full, none).by_picture()
    assert (alone["iou"][0], np.isnan(alone["boundary_f"][0])) == (1.0, True)
    assert metrics.SegmentFigures(full, some).by_picture()["boundary_f"][0] == 1.0
