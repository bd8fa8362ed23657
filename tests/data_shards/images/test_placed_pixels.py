"""Decoding to a placed window: padding, flips, colours, halves; `pixels.square` bit for bit; refusals."""

import cv2
import numpy as np
import pytest
import simplejpeg

from data_shards.images.pixels import square
from data_shards.images.placed import PADDING, Window, decode_windows, recolour, resize_exactly
from data_shards.sampling import view
from data_shards.sampling.view import View
from tests.support.small_set import jpeg, photo

SIZES = [(112, 112), (300, 210), (64, 97), (700, 480), (1000, 1000), (225, 224)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [32, 112, 400])
def test_an_evaluation_is_the_centre_square(size, side):
    blob = jpeg(photo(4, *size))
    plan = view.still(View((side, side)), *(np.array([pixels]) for pixels in size))
    out = np.empty((side, side, 3), np.uint8)
    decode_windows([out], blob, size, [plan.placed.window(0)], exact=plan.exact)
    decoded = simplejpeg.decode_jpeg(blob, "RGB", fastdct=False, fastupsample=False)
    np.testing.assert_array_equal(out, square(decoded, side))


def test_a_letterbox_is_the_resized_image_on_grey_and_flips_whole():
    blob = jpeg(photo(5, 200, 100))
    window = Window((0, 0, 200, 100), (64, 32), (0, 15), False, (64, 64))
    shifted = window._replace(crop=(100, 0, 100, 100), size=(32, 32), offset=(4, 16))
    out, mirrored, alone = np.empty((3, 64, 64, 3), np.uint8)
    decode_windows([out], blob, (200, 100), [window])
    assert (out[:15] == PADDING).all()
    assert (out[47:] == PADDING).all()
    whole = simplejpeg.decode_jpeg(blob, "RGB", fastdct=False, fastupsample=False)
    near = cv2.resize(whole, (64, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(out[15:47].astype(int) - near).mean() < 3
    decode_windows([alone], blob, (200, 100), [shifted])
    decode_windows([mirrored], blob, (200, 100), [shifted._replace(flip=True)])
    np.testing.assert_array_equal(mirrored, alone[:, ::-1])


def test_colour_leaves_the_padding_alone():
    blob = jpeg(photo(6, 200, 100))
    colour = np.eye(3, 4, dtype=np.float32) * 0.5
    for flip in (False, True):
        window = Window((0, 0, 200, 100), (40, 20), (3, 15), flip, (64, 64))
        out, later = np.empty((2, 64, 64, 3), np.uint8)
        decode_windows([out], blob, (200, 100), [window], colour=colour)
        decode_windows([later], blob, (200, 100), [window])
        recolour(later, window, colour)
        np.testing.assert_array_equal(out, later)
        assert (out == PADDING).all(axis=2).sum() >= 64 * 64 - 40 * 20


def test_several_windows_are_decoded_as_each_alone():
    blob = jpeg(photo(7, 640, 320))
    config = View((128, 128), crop_area=(0.5, 1.0), flip=0.5, halves=True)
    placed = view.draw(config, 2, np.arange(4), 0, np.full(4, 640), np.full(4, 320)).placed
    windows = [placed.window(row) for row in range(2)]
    both, single = np.empty((2, 2, 128, 128, 3), np.uint8)
    decode_windows(both, blob, (640, 320), windows)
    for out, window in zip(single, windows, strict=True):
        decode_windows([out], blob, (640, 320), [window])
    np.testing.assert_array_equal(both, single)


def test_exact_resizing_of_a_side_that_shrinks_and_one_that_grows():
    image = photo(8, 300, 40)
    out = resize_exactly(image, (64, 64))
    shrunk = cv2.resize(image, (64, 40), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(out, cv2.resize(shrunk, (64, 64), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("size", [(112, 112), (80, 64)])
def test_bytes_of_another_size_or_damaged_ones_are_refused(size):
    blob = jpeg(photo(9, 80, 80))
    window = Window((0, 0, *size), (112, 112), (0, 0), False, (112, 112))
    out = np.empty((112, 112, 3), np.uint8)
    with pytest.raises(ValueError, match="as the index says"):
        decode_windows([out], blob, size, [window])
    with pytest.raises(ValueError):  # noqa: PT011
        decode_windows([out], blob[: len(blob) // 2], (80, 80), [window._replace(crop=(0, 0, 80, 80))])
