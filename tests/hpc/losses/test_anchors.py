"""Anchors that fit a set: planted sides are found again, good ones stay, and the same set has the same."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_shards.shard_format.columns import RaggedColumn
from hpc.losses.anchors import fit, recall, sides_of
from hpc.losses.assignment import fits
from models.yolo_maps import ANCHORS

PUBLISHED = np.array(ANCHORS[3], np.float32)


def test_planted_sides_are_found_by_area():
    draw = np.random.default_rng(1)
    planted = np.array(
        [[2.2 * 2.1**k, 30.0 * 1.9**k] for k in range(9)]
    )  # slim ones, which no published one suits
    sides = (planted[:, None] * draw.uniform(0.97, 1.03, (9, 50, 2))).reshape(-1, 2)
    found = fit(draw.permutation(sides), PUBLISHED)
    assert found.recall == 1.0 > 0.6 > found.before
    assert found.boxes == 450
    assert found.anchors.shape == (3, 3, 2)
    assert np.allclose(found.anchors.reshape(-1, 2), planted, rtol=0.02)
    again = fit(draw.permutation(sides), PUBLISHED)
    assert np.allclose(again.anchors, found.anchors, rtol=1e-3)


def test_anchors_that_fit_stay():
    sides = PUBLISHED.reshape(-1, 2).repeat(20, axis=0) * 1.5
    found = fit(sides, PUBLISHED)
    assert (found.anchors == PUBLISHED).all()
    assert found.recall == found.before == 1.0


@pytest.mark.parametrize("sides", [np.zeros((0, 2)), np.full((40, 2), 1.0), np.full((40, 2), 3000.0)])
def test_too_few_kinds_of_boxes_leave_the_anchors(sides):
    assert (fit(sides, PUBLISHED).anchors == PUBLISHED).all()


def test_the_recall_is_that_of_the_matching():
    draw = np.random.default_rng(2)
    sides, anchors = np.exp(draw.uniform(1, 6, (300, 2))), np.exp(draw.uniform(2, 5, (6, 2)))
    suits = fits(torch.from_numpy(sides), torch.from_numpy(anchors)).any(0).float().mean().item()
    assert 0.2 < suits < 0.99
    assert recall(sides, anchors) == pytest.approx(suits, abs=1e-6)


def test_sides_are_those_of_the_networks_images_and_ignored_ones_are_left_out():
    starts = np.array([0, 2, 3], np.uint64)
    boxes = np.array([[0, 0, 20, 10], [5, 5, 8, 8], [0, 0, 40, 80]], np.float32)
    flags = np.array([[0, 1], [1, 0], [0, 0]], np.uint8)
    shards = SimpleNamespace(
        width=np.array([200, 100], np.uint16),
        height=np.array([100, 400], np.uint16),
        ragged={"boxes": RaggedColumn(starts, boxes), "box_flags": RaggedColumn(starts, flags)},
    )
    assert sides_of(shards, 100).tolist() == [[10.0, 5.0], [10.0, 20.0]]
