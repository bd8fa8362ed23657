"""L1, SSIM and overlaps: scipy and scikit-learn as oracles, and what has a closed form."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn import metrics as oracle

from hpc.metrics.classification import confusion
from hpc.metrics.paired import l1, nearest_colours, overlap, ssim


def images(seed: int, n: int = 3, side: tuple[int, int] = (20, 26)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *side, 3), np.uint8)


def test_l1_is_a_share_of_the_range():
    one = images(0)
    assert l1(one, one).tolist() == [0, 0, 0]
    assert l1(np.zeros_like(one), np.full_like(one, 255)).tolist() == [1, 1, 1]
    assert l1(one, images(1))[1] == pytest.approx(np.abs(one[1] - images(1)[1].astype(float)).mean() / 255)


def test_ssim_equals_scipys_gaussian_filter():
    one = images(2)
    other = np.clip(one + np.random.default_rng(3).normal(0, 30, one.shape), 0, 255)

    def blurred(x: np.ndarray) -> np.ndarray:  # one channel; a radius of 5 pixels, whole windows alone
        return gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]

    for row, found in enumerate(ssim(one, other)):
        values = []
        for channel in range(3):
            x, y = one[row, ..., channel].astype(float), other[row, ..., channel]
            mx, my = blurred(x), blurred(y)
            vx, vy, xy = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
            values.append(
                (
                    (2 * mx * my + 6.5025)
                    * (2 * xy + 58.5225)
                    / ((mx**2 + my**2 + 6.5025) * (vx + vy + 58.5225))
                ).mean()
            )
        assert found == pytest.approx(np.mean(values), rel=1e-9)


def test_ssim_where_it_is_known():
    one = images(4)
    np.testing.assert_allclose(ssim(one, one), 1)
    # of two even images only the means differ
    dark, light = np.full((1, 11, 11, 1), 50.0), np.full((1, 11, 11, 1), 100.0)
    assert ssim(dark, light)[0] == pytest.approx((2 * 50 * 100 + 6.5025) / (50**2 + 100**2 + 6.5025))
    assert (ssim(one, 255 - one) < 0).all()
    with pytest.raises(ValueError, match="windows of 11 pixels"):
        ssim(one[:, :10], one[:, :10])


def test_pixels_are_read_as_the_nearest_colour():
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]])
    labels = np.random.default_rng(5).integers(0, 3, (2, 9, 9))
    noisy = palette[labels] + np.random.default_rng(6).normal(0, 25, (2, 9, 9, 3))
    np.testing.assert_array_equal(nearest_colours(noisy, palette), labels)
    assert nearest_colours(np.full((1, 1, 1, 3), 0), palette[[0, 0]]).item() == 0  # the first of equal ones


def test_overlaps_equal_scikit_learn():
    rng = np.random.default_rng(7)
    truth, predicted = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    counts = confusion(truth, predicted, 5)
    iou, dice = overlap(counts)
    np.testing.assert_allclose(iou[:4], oracle.jaccard_score(truth, predicted, average=None))
    np.testing.assert_allclose(dice[:4], oracle.f1_score(truth, predicted, average=None))
    assert np.isnan([iou[4], dice[4]]).all()
