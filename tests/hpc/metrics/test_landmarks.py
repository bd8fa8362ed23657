"""Errors of landmarks by closed form: by the diagonal of a box, by the distance of the eyes, unknown ones."""

import numpy as np
import pytest

from hpc.metrics.landmarks import errors

TRUTH = np.array([[[10, 10], [30, 10], [20, 20]], [[-1, -1], [5, 5], [0, 0]], [[-1, -1]] * 3], float)
BOXES = np.array([[0, 0, 30, 40], [0, 0, 3, 4], [0, 0, 6, 8]], float)


def test_errors_are_shares_of_the_diagonal_and_of_the_distance_of_the_eyes():
    found = TRUTH + np.array([[[3, 4], [0, 0], [0, 10]], [[9, 9], [0, 1], [0, 0]], [[7, 7]] * 3])
    both = errors(found, TRUTH, BOXES, eyes=(0, 1))
    # of the first 5, 0, 10 pixels of 50, of the second 1, 0 of 5, of the third nothing is known
    assert both.by_diagonal() == pytest.approx((0.1 + 0.1) / 2)
    assert both.by_eyes() == pytest.approx(5 / 20)  # the second has one known eye
    assert both.of_each().tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert np.isnan(both.distance[1, 0])


def test_nothing_known_has_no_figure():
    none = errors(TRUTH[2:], TRUTH[2:], BOXES[2:], eyes=(0, 1))
    assert np.isnan([none.by_diagonal(), none.by_eyes(), *none.of_each()]).all()
    assert np.isnan(errors(TRUTH[:1], TRUTH[:1], BOXES[:1]).by_eyes())
    assert errors(TRUTH[:1], TRUTH[:1], BOXES[:1]).by_diagonal() == 0
    assert np.isnan(errors(TRUTH[:0], TRUTH[:0], BOXES[:0]).by_diagonal())
