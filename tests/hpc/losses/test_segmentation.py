"""Losses of masks in closed form: unknown pixels cost nothing, and no image depends on the others."""

import math

import pytest
import torch

from hpc.losses import segmentation as losses

MASK = torch.tensor([[[0, 1], [1, 255]], [[255, 255], [255, 255]]], dtype=torch.uint8)


def test_cross_entropy_is_the_mean_over_known_pixels():
    logits = torch.zeros(2, 2, 2, 2)
    logits[0, 1, 0, 1] = math.log(3)  # the right class has 3 of 4
    logits[0, 0, 1, 1] = 50  # unknown
    found = losses.cross_entropy(logits, MASK)
    expected = (2 * math.log(2) + math.log(4 / 3)) / 3
    torch.testing.assert_close(found, torch.tensor([expected, 0.0]))


def test_weights_move_the_mean_to_pixels_that_weigh_more():
    logits = torch.zeros(2, 2, 2, 2)
    logits[0, 1, 0, 1] = math.log(3)
    weights = torch.tensor([[[1.0, 4.0], [1.0, 9.0]], [[1.0, 1.0], [1.0, 1.0]]])
    found = losses.cross_entropy(logits, MASK, weights)[0]
    assert found.item() == pytest.approx((2 * math.log(2) + 4 * math.log(4 / 3)) / 6)


def test_dice_of_probabilities_by_hand():
    """Three known pixels at 1/2: |p t| = 1, |p| = 3/2, |t| = 2."""
    found = losses.dice(torch.zeros(2, 2, 2, 2), MASK)
    torch.testing.assert_close(found, torch.tensor([1 - (2 + 1) / (1.5 + 2 + 1), 0.0]))


def test_right_masks_cost_nothing_and_empty_ones_agree():
    mask = torch.tensor([[[0, 1], [2, 1]], [[0, 0], [0, 0]]], dtype=torch.uint8)
    logits = 60.0 * torch.nn.functional.one_hot(mask.long(), 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(losses.dice(logits, mask), torch.zeros(2))
    torch.testing.assert_close(losses.cross_entropy(logits, mask), torch.zeros(2))


def test_a_loss_of_an_image_does_not_depend_on_the_others():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=generator)
    mask = torch.randint(0, 3, (4, 8, 8), generator=generator, dtype=torch.uint8)
    for loss in (losses.cross_entropy, losses.dice):
        parts = torch.cat([loss(logits[row : row + 1], mask[row : row + 1]) for row in range(4)])
        torch.testing.assert_close(loss(logits, mask), parts)


def test_pixels_near_a_boundary_weigh_more_and_unknown_ones_make_none():
    mask = torch.zeros(1, 5, 9, dtype=torch.uint8)
    mask[..., 6:] = 1
    mask[..., 0] = 255
    found = losses.boundary_weights(mask, extra=4.0, reach=2)
    assert found[0, 2].tolist() == [1, 1, 1, 1, 5, 5, 5, 5, 1]
    assert found.dtype == torch.float32
