"""Views: inside their bounds, of the fit asked for, with the numbers of old, independent of the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sampling import view
from data_shards.sampling.placed import Placed
from data_shards.sampling.view import FITS, View
from hpc.config.schema import Augment
from hpc.data.views import view_of

SIZES = st.tuples(st.integers(2, 900), st.integers(1, 900))  # width, height
TARGETS = st.tuples(st.integers(1, 300), st.integers(1, 300))
RATIOS = st.sampled_from([(0.75, 4 / 3), (1.0, 1.0), (0.2, 0.5)])
VIEWS = st.builds(
    View,
    target=TARGETS,
    fit=st.sampled_from(FITS),
    crop_area=st.sampled_from([(1.0, 1.0), (0.1, 1.0), (0.5, 0.6)]),
    crop_ratio=RATIOS,
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    halves=st.booleans(),
)


def draw(config: View, size: tuple[int, int], n: int = 20, seed: int = 3) -> view.DecodePlan:
    wide, high = (np.full(n, side) for side in size)
    return view.draw(config, seed, np.arange(n), 0, wide, high)


def test_the_numbers_are_those_of_runs_that_began_before_there_were_views():
    wide, high = np.array([500, 300, 1000, 90]), np.array([400, 600, 100, 90])
    positions = np.array([0, 5, 6, 10**12])
    drawn = view.draw(view_of(Augment(hue=9.0), (112, 112)), 7, positions, 1, wide, high)
    crops = [[133, 34, 325, 315], [16, 9, 282, 360], [433, 0, 133, 100], [3, 1, 87, 88]]
    np.testing.assert_array_equal(drawn.placed.crop, crops)
    np.testing.assert_array_equal(drawn.placed.flip, [False, False, True, False])
    reds = [
        [0.9550, 0.0483, 0.0260, 8.1408],
        [0.6637, 0.0097, 0.0008, 24.5459],
        [1.1823, -0.0294, 0.0558, -1.0113],
        [1.2674, 0.0171, -0.0657, -24.4168],
    ]
    np.testing.assert_allclose(drawn.colour[:, 0], reds, atol=1e-4)


def test_an_evaluation_is_the_centre_square_and_nothing_random():
    wide, high = np.array([160, 112, 90]), np.array([120, 112, 101])
    plan = view.still(View((64, 64), flip=1.0, brightness=0.3, crop_area=(0.1, 0.2)), wide, high)
    np.testing.assert_array_equal(plan.placed.crop, [[20, 0, 120, 120], [0, 0, 112, 112], [0, 5, 90, 90]])
    assert plan.exact
    assert plan.colour is None
    assert not plan.placed.flip.any()


@settings(deadline=None)
@given(VIEWS, SIZES)
def test_every_view_stays_inside_its_bounds(config, size):
    plan = draw(config, size)  # Placed refuses whatever leaves them
    assert len(plan) == 20 * (1 + config.halves)
    assert plan.placed.target == config.target


@settings(deadline=None)
@given(TARGETS, SIZES)
def test_contain_keeps_the_shape_and_fills_one_side(target, size):
    placed = draw(View(target, fit="contain"), size, n=1).placed
    (width, height), (wide, high) = placed.size[0], size
    assert tuple(placed.crop[0]) == (0, 0, *size)
    assert width == target[1] or height == target[0]
    scale = min(target[1] / wide, target[0] / high)
    assert abs(width - max(1, wide * scale)) <= 0.5 + 1e-9
    assert abs(height - max(1, high * scale)) <= 0.5 + 1e-9
    left, top, right, bottom = placed.content()[0]
    assert abs(left - (target[1] - right)) <= 1
    assert abs(top - (target[0] - bottom)) <= 1


@settings(deadline=None)
@given(TARGETS, SIZES)
def test_cover_cuts_one_side_only_and_stretch_none(target, size):
    cover, stretch = (draw(View(target, fit=fit), size, n=1).placed for fit in ("cover", "stretch"))
    assert (cover.crop[0, 2:] == size).any()
    across, down = cover.size[0] / cover.crop[0, 2:]
    pixel = max(target[1] / cover.crop[0, 2] ** 2, target[0] / cover.crop[0, 3] ** 2)  # of rounding the crop
    assert abs(across - down) <= pixel or min(cover.crop[0, 2:]) == 1
    assert tuple(stretch.crop[0]) == (0, 0, *size)
    assert tuple(stretch.size[0]) == target[::-1]


def test_random_crops_have_the_shape_of_the_target_or_of_the_image():
    config = {"crop_area": (0.2, 0.3), "crop_ratio": (0.999, 1.001)}
    cover = draw(View((100, 300), **config), (1200, 1000)).placed.crop
    np.testing.assert_allclose(cover[:, 2] / cover[:, 3], 3, rtol=0.01)
    contain = draw(View((100, 300), fit="contain", **config), (1200, 1000)).placed.crop
    np.testing.assert_allclose(contain[:, 2] / contain[:, 3], 1.2, rtol=0.01)


def test_both_halves_are_cut_flipped_and_coloured_alike():
    config = View((64, 64), crop_area=(0.3, 0.9), flip=0.5, brightness=0.4, halves=True)
    plan = draw(config, (401, 200), n=50)
    a, b = plan.placed[0::2], plan.placed[1::2]
    np.testing.assert_array_equal(a.crop + np.array([201, 0, 0, 0]), b.crop)
    np.testing.assert_array_equal(a.flip, b.flip)
    np.testing.assert_array_equal(plan.colour[0::2], plan.colour[1::2])
    assert (a.crop[:, 0] + a.crop[:, 2]).max() <= 200
    assert b.crop[:, 0].min() >= 201
    alone = draw(View((64, 64), crop_area=(0.3, 0.9), flip=0.5), (200, 200), n=50).placed
    np.testing.assert_array_equal(a.crop, alone.crop)


@settings(deadline=None)
@given(VIEWS, SIZES, st.lists(st.integers(0, 19), min_size=1, max_size=6))
def test_a_row_depends_on_its_position_alone(config, size, positions):
    positions = np.array(positions)
    whole = draw(config, size).placed
    part = view.draw(config, 3, positions, 0, *(np.full(len(positions), side) for side in size)).placed
    rows = (positions[:, None] * 2 + [0, 1]).reshape(-1) if config.halves else positions
    for name in ("source", "crop", "size", "offset", "flip"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole[rows], name))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"fit": "fill"}, "fit=fill"),
        ({"target": (0, 3)}, "target="),
        ({"crop_area": (0.5, 0.1)}, "crop_area="),
        ({"crop_area": (0.5, 1.5)}, "crop_area="),
        ({"crop_ratio": (0, 1)}, "crop_ratio="),
    ],
)
def test_a_view_that_makes_no_sense_is_refused_by_name(config, named):
    with pytest.raises(UserError, match=named):
        View(**{"target": (8, 8), **config})


def test_an_image_without_halves_is_refused():
    with pytest.raises(UserError, match="halves"):
        draw(View((8, 8), halves=True), (1, 5))


def test_what_leaves_its_bounds_is_no_placement():
    one = np.ones((1, 2), np.int32)
    with pytest.raises(ValueError, match="leaves its bounds"):
        Placed(one * 10, np.array([[5, 0, 6, 10]]), one, one * 0, np.zeros(1, bool), (4, 4))
