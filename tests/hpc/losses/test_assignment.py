"""Matching of boxes with anchors: cases worked out by hand, and a plain loop over boxes as reference."""

import math

import numpy as np
import torch

from hpc.losses.assignment import covered_cells, match
from tests.support.host_reads import HostReads
from tests.support.targets import targets


def taken(found):
    """{(image, anchor, row, column)} of the candidates that are targets."""
    rows = torch.stack([found.image, found.anchor, found.row, found.column], 1)[found.weight > 0]
    return [tuple(row) for row in rows.tolist()]


def test_a_box_is_given_to_its_cell_and_the_two_nearest():
    # centre (42, 70) / 8 = (5.25, 8.75): left of the middle, below it
    found = match(targets([[32, 60, 52, 80]]), torch.tensor([[16.0, 20.0]]), (16, 16), 8)
    assert sorted(taken(found)) == [(0, 0, 8, 4), (0, 0, 8, 5), (0, 0, 9, 5)]
    centres = {
        (row, column): tuple(c)
        for row, column, c, weight in zip(
            found.row.tolist(),
            found.column.tolist(),
            found.centre.tolist(),
            found.weight.tolist(),
            strict=True,
        )
        if weight
    }
    assert centres == {(8, 5): (0.25, 0.75), (8, 4): (1.25, 0.75), (9, 5): (0.25, -0.25)}
    assert found.size[found.weight > 0].tolist() == [[2.5, 2.5]] * 3


def test_no_neighbour_is_outside_of_the_map():
    # the centre is in the first column, left of its middle, and exactly in the middle of a row
    found = match(targets([[0, 12, 4, 28]]), torch.tensor([[6.0, 10.0]]), (4, 4), 8)
    assert taken(found) == [(0, 0, 2, 0)]
    assert taken(match(targets([[100, 0, 110, 8]]), torch.tensor([[8.0, 8.0]]), (4, 4), 8)) == []


def test_the_ratio_of_either_side_decides():
    anchors = torch.tensor([[10.0, 10.0], [40.0, 10.0], [2.6, 10.0]])
    found = match(targets([[8, 8, 18, 18]]), anchors, (8, 8), 8)
    assert {anchor for _, anchor, _, _ in taken(found)} == {0, 2}  # 40 / 10 is 4, and 4 is not below 4
    assert {
        anchor for _, anchor, _, _ in taken(match(targets([[8, 8, 18, 18]]), anchors, (8, 8), 8, ratio=3))
    } == {0}


def test_gone_and_ignored_boxes_are_no_targets():
    given = targets([[0, 0, 0, 0], [10, 10, 20, 20], [40, 40, 50, 50]], ignored=[False, True, False])
    found = match(given, torch.tensor([[10.0, 10.0]]), (8, 8), 8)
    assert {(row, column) for _, _, row, column in taken(found)} == {(5, 5), (5, 6), (6, 5)}
    assert int(found.ignored.sum()) == 3
    assert torch.isfinite(found.centre).all()
    assert torch.isfinite(found.size).all()


def test_random_boxes_are_matched_as_by_a_loop():
    draw = np.random.default_rng(5)
    low = draw.uniform(-8, 120, (60, 2))
    boxes = np.concatenate([low, low + draw.uniform(0, 60, (60, 2))], 1).astype(np.float32)
    owners, anchors = draw.integers(0, 3, 60), np.array([[9, 14], [30, 22], [3, 50]], np.float32)
    found = match(targets(boxes.tolist(), owners=owners.tolist()), torch.from_numpy(anchors), (12, 15), 8)
    assert sorted(taken(found)) == sorted(_by_loop(boxes, owners, anchors, 12, 15, 8))


def _by_loop(boxes, owners, anchors, rows, columns, stride):
    for (x0, y0, x1, y1), owner in zip(boxes / np.float32(stride), owners, strict=True):
        x, y, wide, high = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
        if not (0 <= x < columns and 0 <= y < rows):
            continue
        cells = [(math.floor(x), math.floor(y))]
        cells += [(cells[0][0] - 1, cells[0][1])] if x % 1 < 0.5 and x > 1 else []
        cells += [(cells[0][0], cells[0][1] - 1)] if y % 1 < 0.5 and y > 1 else []
        cells += [(cells[0][0] + 1, cells[0][1])] if x % 1 > 0.5 and x < columns - 1 else []
        cells += [(cells[0][0], cells[0][1] + 1)] if y % 1 > 0.5 and y < rows - 1 else []
        for number, anchor in enumerate(anchors / stride):
            if max(wide / anchor[0], anchor[0] / wide, high / anchor[1], anchor[1] / high) < 4:
                yield from ((owner, number, row, column) for column, row in cells)


def test_cells_of_ignored_boxes_are_those_whose_centres_they_hold():
    given = targets(
        [[4, 4, 20, 12], [12, 4, 28, 12], [0, 0, 32, 32]], ignored=[True, True, False], owners=[1, 1, 0]
    )
    found = covered_cells(given, 2, (4, 4), 8)
    # centres 4, 12, 20, 28: [4, 20) holds two of them, [12, 28) two, [4, 12) one
    assert not found[0].any()
    assert found[1].nonzero().tolist() == [[0, 0], [0, 1], [0, 2]]


def test_nothing_is_read_from_the_device():
    given = targets([[4, 4, 20, 12]], ignored=[True])
    anchors = torch.tensor([[10.0, 10.0]])
    with HostReads() as reads:
        match(given, anchors, (4, 4), 8)
        covered_cells(given, 1, (4, 4), 8)
    assert reads.found == []


def test_no_boxes_are_no_candidates():
    found = match(targets([]), torch.ones(3, 2), (4, 4), 8)
    assert len(found.weight) == 0
    assert not covered_cells(targets([]), 2, (4, 4), 8).any()
