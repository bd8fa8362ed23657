"""Labels follow the pixels that the host decodes, and come back: boxes, points, masks, for all views."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_shards.images.placed import UNKNOWN, decode_mask, decode_windows
from data_shards.sampling import view
from data_shards.sampling.placed import UNKNOWN_POINT, Placed
from data_shards.sampling.view import FITS, View
from tests.support.painted import as_jpeg, as_png, found_box, paint

VIEWS = st.builds(
    View,
    target=st.tuples(st.integers(24, 160), st.integers(24, 160)),
    fit=st.sampled_from(FITS),
    crop_area=st.sampled_from([(1.0, 1.0), (0.3, 1.0)]),
    flip=st.sampled_from([0.0, 1.0]),
    halves=st.booleans(),
)
SIZES = st.tuples(st.integers(60, 500), st.integers(40, 500))
SEEDS = st.integers(0, 1000)
BOX = np.array([0.2, 0.25, 0.7, 0.9])  # of the crop


def place(config: View, size: tuple[int, int], seed: int) -> Placed:
    """The placements of one image: one, or those of its two halves."""
    return view.draw(config, seed, np.array([seed]), 0, *(np.array([side]) for side in size)).placed


def box_in(crop: np.ndarray) -> tuple[int, ...]:
    """A box well inside of a crop."""
    sides = np.tile(crop[2:], 2)
    return tuple(np.rint(np.tile(crop[:2], 2) + BOX * sides).astype(int).tolist())


def coarser(placed: Placed, row: int) -> np.ndarray:
    """[4] pixels of the target that one pixel of the coarser grid takes, of the sides of a box."""
    return np.tile(np.maximum(1, placed.size[row] / placed.crop[row, 2:]), 2)


@settings(deadline=None, max_examples=150)
@given(VIEWS, SIZES, SEEDS)
def test_a_painted_box_is_where_the_label_says(config, size, seed):
    placed = place(config, size, seed)
    assume((placed.size >= 12).all() and (placed.crop[:, 2:] >= 12).all())
    for row in range(len(placed)):
        box = box_in(placed.crop[row])
        out = np.empty((*config.target, 3), np.uint8)
        decode_windows([out], as_jpeg(paint(size, box)), size, [placed.window(row)])
        x0, y0, x1, y1 = placed.content()[row]
        light = np.zeros(config.target)
        light[y0:y1, x0:x1] = out[y0:y1, x0:x1, 0] / 255.0  # without the padding, which is grey
        label = placed.boxes(np.array([box]), np.array([row]))[0]
        assert (np.abs(found_box(light) - label) <= 0.5 * coarser(placed, row) + 0.05).all()
        corners = placed.points(np.array([[box[:2], box[2:]]]), np.array([row]))[0]
        assert (np.sort(corners[:, 0]) == label[0::2]).all()
        assert (corners[:, 1] == label[1::2]).all()


@settings(deadline=None, max_examples=150)
@given(VIEWS, SIZES, SEEDS, st.sampled_from([1.0, 0.5, 1.7]))
def test_a_mask_follows_its_boxes_and_is_padded_as_unknown(config, size, seed, share):
    placed = place(config, size, seed)
    stored = tuple(max(1, round(side * share)) for side in size)
    for row in range(len(placed)):
        box = box_in(placed.crop[row])
        mask = cv2.resize(paint(size, box)[..., 0] // 255 * 7, stored, interpolation=cv2.INTER_NEAREST_EXACT)
        out = np.empty(config.target, np.uint8)
        decode_mask(out, as_png(mask), stored, size, placed.window(row))
        np.testing.assert_array_equal(out, placed.mask(mask, row))
        x0, y0, x1, y1 = placed.content()[row]
        shown = np.zeros(config.target, bool)
        shown[y0:y1, x0:x1] = True
        assert (out[~shown] == UNKNOWN).all()
        assert np.isin(out[shown], [0, 7]).all()
        if (out[shown] == 7).any():
            label = placed.boxes(np.array([box]), np.array([row]))[0]
            slack = coarser(placed, row) * max(1, 1 / share)
            assert (np.abs(found_box((out == 7) * 1.0) - label) <= 0.5 * slack + 0.5).all()


@settings(deadline=None)
@given(VIEWS, SIZES, SEEDS)
def test_undo_brings_points_boxes_and_masks_back(config, size, seed):
    placed = place(config, size, seed)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(placed), 30)
    points = rng.uniform(-20, 400, (30, 5, 2))
    points[3, 1] = UNKNOWN_POINT
    mirror = np.array([1, 0, 2, 4, 3])
    there = placed.points(points, rows, mirror=mirror)
    np.testing.assert_allclose(placed.undo_points(there, rows, mirror=mirror), points, atol=1e-9)
    points[3, 1] = 20, 30
    boxes = np.sort(points[:, :2], axis=1).reshape(-1, 4)
    boxes[0] = UNKNOWN_POINT, UNKNOWN_POINT, 50, 60  # a corner like any other
    np.testing.assert_allclose(placed.undo_boxes(placed.boxes(boxes, rows), rows), boxes, atol=1e-9)
    mask = rng.integers(0, 5, size[::-1], dtype=np.uint8)
    for row in range(len(placed)):
        back = placed.undo_mask(placed.mask(mask, row), row)
        x, y, wide, high = placed.crop[row]
        outside = np.ones(back.shape, bool)
        outside[y : y + high, x : x + wide] = False
        assert (back[outside] == UNKNOWN).all()
        if (placed.size[row] % placed.crop[row, 2:] == 0).all():  # every stored pixel is shown
            np.testing.assert_array_equal(back[~outside], mask[~outside])


def test_undone_masks_take_the_pixel_that_holds_their_centre():
    placed = place(View((40, 60), fit="contain", flip=1.0), (120, 100), 0)
    mask = np.tile(np.arange(60, dtype=np.uint8), (40, 1))
    back = placed.undo_mask(mask, 0)
    centres = np.stack([np.arange(120) + 0.5, np.full(120, 50.5)], axis=1)
    columns = placed.points(centres[None])[0, :, 0]
    on_an_edge = np.abs(columns - np.rint(columns)) < 1e-9
    np.testing.assert_array_equal(back[50][~on_an_edge], np.floor(columns)[~on_an_edge])
    assert np.abs(back[50] + 0.5 - columns).max() <= 0.5 + 1e-9


def test_a_mirror_image_exchanges_left_and_right_landmarks():
    placed = place(View((50, 100), flip=1.0, fit="stretch"), (100, 50), 1)
    eyes = np.array([[[30.0, 20.0], [70.0, 25.0], [-1.0, -1.0]]])
    there = placed.points(eyes, mirror=np.array([1, 0, 2]))
    np.testing.assert_allclose(there, [[[30, 25], [70, 20], [-1, -1]]])


def test_clipping_states_what_is_left_of_a_box():
    placed = place(View((50, 50), fit="cover"), (100, 50), 0)  # shows x from 25 to 75
    there = placed.boxes(np.array([[0, 0, 50, 50], [30, 5, 40, 10], [80, 0, 90, 9]]), np.zeros(3, int))
    boxes, share = placed.clip(there, np.zeros(3, int))
    np.testing.assert_allclose(boxes[:2], [[0, 0, 25, 50], [5, 5, 15, 10]])
    np.testing.assert_allclose(share, [0.5, 1, 0])


GREY = np.zeros((8, 8), np.uint8)
NOT_MASKS = {
    "empty": b"",
    "zeros": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "a JPEG": as_jpeg(paint((8, 8), (0, 0, 4, 4))),
    "another size": as_png(np.zeros((8, 9), np.uint8)),
    "colour": as_png(np.zeros((8, 8, 3), np.uint8)),
    "16 bits": as_png(np.zeros((8, 8), np.uint16)),
    "cut off": as_png(GREY)[:40],
}


@pytest.mark.parametrize("png", NOT_MASKS.values(), ids=NOT_MASKS)
def test_what_is_not_a_grey_png_of_its_size_is_refused(png):
    placed = place(View((8, 8)), (8, 8), 0)
    with pytest.raises(ValueError, match="it is not"):
        decode_mask(np.empty((8, 8), np.uint8), png, (8, 8), (8, 8), placed.window(0))
