"""What a mask shows is kept as it is; all else is transparent, or the plain colour."""

import numpy as np
import pytest

from data_shards.errors import UserError
from hpc.inference import cutout

IMAGE = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) + 1
MASK = np.array([[0, 1, 255], [1, 2, 0], [0, 0, 0]], np.uint8)
KEPT = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)


def test_what_is_left_out_is_transparent():
    found = cutout.with_alpha(IMAGE, MASK)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 3], 255 * KEPT)
    np.testing.assert_array_equal(found[KEPT, :3], IMAGE[KEPT])
    assert not found[~KEPT].any()


def test_what_is_left_out_has_the_plain_colour():
    found = cutout.over(IMAGE, MASK, cutout.colour_of("00fF10"))
    np.testing.assert_array_equal(found[KEPT], IMAGE[KEPT])
    assert (found[~KEPT] == (0, 255, 16)).all()


@pytest.mark.parametrize("text", ["green", "#00ff00", "00ff0", ""])
def test_a_colour_is_six_digits(text):
    with pytest.raises(UserError, match="is not a colour: type RRGGBB"):
        cutout.colour_of(text)
