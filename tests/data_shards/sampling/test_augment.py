"""Random crops, flips and colours: inside the image, of the distribution asked for, alone in any batch."""

import numpy as np
import pytest
from scipy import stats

from data_shards.sampling import view
from data_shards.sampling.view import View

N = 4000
DEFAULT = {
    "crop_area": (0.5, 1.0),
    "crop_ratio": (0.75, 1.3333),
    "flip": 0.5,
    **dict.fromkeys(("brightness", "contrast", "saturation"), 0.2),
}


def draw(positions=None, size=(160, 120), **keys):
    positions = np.arange(N) if positions is None else positions
    wide, high = (np.full(len(positions), side) for side in size)
    return view.draw(View((112, 112), **{**DEFAULT, **keys}), 3, positions, 0, wide, high)


@pytest.mark.parametrize("size", [(160, 120), (1, 1), (7, 300), (112, 112)])
def test_crops_lie_inside_the_image(size):
    x, y, wide, high = draw(size=size, crop_area=[0.08, 1.0]).placed.crop.T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (wide >= 1).all()
    assert (high >= 1).all()
    assert (x + wide <= size[0]).all()
    assert (y + high <= size[1]).all()


def test_area_and_log_ratio_are_uniform_where_every_attempt_fits():
    crop = draw(size=(2000, 2000), crop_area=[0.1, 0.4], crop_ratio=[0.75, 4 / 3]).placed.crop
    area = crop[:, 2] * crop[:, 3] / 4e6
    ratio = np.log(crop[:, 2] / crop[:, 3])
    assert stats.kstest(area, stats.uniform(0.1, 0.3).cdf).pvalue > 1e-4
    assert stats.kstest(ratio, stats.uniform(np.log(0.75), np.log(16 / 9)).cdf).pvalue > 1e-4
    assert stats.kstest(crop[:, 0] / (2000 - crop[:, 2]), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(area, ratio)[0, 1]) < 0.08


def test_without_a_fitting_attempt_the_largest_allowed_crop_in_the_centre():
    crop = draw(size=(1000, 100), crop_area=[0.9, 1.0], crop_ratio=[0.75, 1.25]).placed.crop
    np.testing.assert_array_equal(crop, np.tile([437, 0, 125, 100], (N, 1)))


def test_no_crop_is_the_centre_square_as_in_evaluation():
    wide, high = np.array([160, 112, 90]), np.array([120, 112, 101])
    none = view.draw(View((112, 112)), 0, np.arange(3), 0, wide, high).placed.crop
    np.testing.assert_array_equal(none, [[20, 0, 120, 120], [0, 0, 112, 112], [0, 5, 90, 90]])
    centre = view.still(View((112, 112)), wide, high)
    np.testing.assert_array_equal(centre.placed.crop, none)
    assert not centre.placed.flip.any()
    assert centre.colour is None


def test_a_row_depends_on_its_position_alone():
    whole = draw()
    part = draw(positions=np.array([77, 5, 3999]))
    rows = [77, 5, 3999]
    np.testing.assert_array_equal(part.placed.crop, whole.placed.crop[rows])
    np.testing.assert_array_equal(part.placed.flip, whole.placed.flip[rows])
    np.testing.assert_array_equal(part.colour, whole.colour[rows])
    config = View((112, 112), **DEFAULT)
    other = view.draw(config, 3, np.arange(N), 1, np.full(N, 160), np.full(N, 120))
    assert (other.placed.crop != whole.placed.crop).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_have_their_probability(probability):
    assert abs(draw(flip=probability).placed.flip.mean() - probability) < 0.04


def colours_of(pixels, **keys):
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    colour = draw(**{**off, **keys}).colour
    return colour[:, :, :3] @ np.asarray(pixels, np.float32) + colour[:, :, 3]


def test_no_colour_change_asked_for_gives_none():
    assert draw(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0).colour is None


def test_brightness_scales_contrast_pulls_to_grey_saturation_keeps_luma():
    pixel, luma = np.array([200.0, 60.0, 100.0]), np.array([0.299, 0.587, 0.114])
    bright = colours_of(pixel, brightness=0.2) / pixel
    assert np.ptp(bright, axis=1).max() < 1e-5
    assert stats.kstest(bright[:, 0], stats.uniform(0.8, 0.4).cdf).pvalue > 1e-4
    contrast = (colours_of(pixel, contrast=0.3) - 127.5) / (pixel - 127.5)
    assert np.ptp(contrast, axis=1).max() < 1e-4
    assert abs(contrast.mean() - 1) < 0.02
    saturated = colours_of(pixel, saturation=0.5)
    np.testing.assert_allclose(saturated @ luma, pixel @ luma, rtol=1e-5)
    assert saturated.std(axis=0).min() > 1


def test_hue_turns_colours_and_keeps_greys():
    grey = colours_of([90.0, 90.0, 90.0], hue=90)
    np.testing.assert_allclose(grey, 90, atol=0.2)
    red = colours_of([200.0, 20.0, 20.0], hue=90)
    assert red[:, 0].min() < 120
    np.testing.assert_allclose(red @ [0.299, 0.587, 0.114], 73.8, atol=0.5)


def test_strengths_above_one_never_turn_negative():
    assert colours_of([10.0, 200.0, 30.0], brightness=3.0).min() >= 0
