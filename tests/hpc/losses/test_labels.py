"""Losses of classes, bits and numbers: against torch's own, and by their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hpc.losses import labels


@pytest.fixture
def logits():
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)


LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_softmax_is_torch_s_cross_entropy(logits, smoothing):
    found = labels.softmax(logits, LABELS, smoothing=smoothing)
    wanted = F.cross_entropy(logits, LABELS, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(found, wanted)


def test_weights_scale_each_image_by_its_class(logits):
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0])
    found = labels.softmax(logits, LABELS, weights=weights)
    torch.testing.assert_close(found, labels.softmax(logits, LABELS) * weights[LABELS])


def test_focal_weighs_by_what_is_missing_to_certainty(logits):
    plain = labels.softmax(logits, LABELS)
    chance = torch.softmax(logits, 1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(labels.softmax(logits, LABELS, focal=2.0), (1 - chance) ** 2 * plain)


def test_one_output_is_two_classes():
    logit, target = torch.linspace(-3, 3, 7)[:, None], torch.tensor([0, 1, 0, 1, 1, 0, 1])
    wanted = F.binary_cross_entropy_with_logits(logit[:, 0], target.float(), reduction="none")
    torch.testing.assert_close(labels.sigmoid(logit, target), wanted)
    share = torch.softmax(labels.two_classes(logit), 1)[:, 1]
    torch.testing.assert_close(share, torch.sigmoid(logit[:, 0]))


def test_unknown_labels_cost_nothing_and_have_no_gradient(logits):
    target = LABELS.clone()
    target[::2] = -1
    loss = labels.softmax(logits, target, smoothing=0.1, focal=1.0, weights=torch.ones(4))
    assert (loss[::2] == 0).all()
    assert (loss[1::2] > 0).all()
    loss.sum().backward()
    assert (logits.grad[::2] == 0).all()


def test_bits_are_torch_s_over_the_known_ones(logits):
    target = torch.randint(-1, 2, (9, 4), generator=torch.Generator().manual_seed(1))
    target[0] = -1
    positive = torch.tensor([1.0, 2.0, 3.0, 0.5])
    found = labels.bits(logits, target, positive=positive)
    assert found[0] == 0
    for row in range(1, 9):
        known = target[row] >= 0
        each = F.binary_cross_entropy_with_logits(
            logits[row][known], target[row][known].float(), pos_weight=positive[known]
        )
        torch.testing.assert_close(found[row], each if known.any() else torch.tensor(0.0))


def test_focal_bits_fall_with_certainty():
    sure = labels.bits(torch.tensor([[6.0]]), torch.tensor([[1]]), focal=2.0)
    unsure = labels.bits(torch.tensor([[0.0]]), torch.tensor([[1]]), focal=2.0)
    torch.testing.assert_close(unsure, torch.tensor([0.25 * np.log(2)], dtype=torch.float32))
    assert sure < unsure / 1000


def test_l1_is_the_distance_in_halves_of_the_range():
    out = torch.tensor([[0.0], [1.0], [-1.0]])
    assert labels.number_of(out, 0, 100).tolist() == [50, 100, 0]
    found = labels.l1(out, torch.tensor([50.0, 75.0, -1.0]), low=0, high=100)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 0.0]))


def test_ordinal_answers_make_the_number():
    ages = torch.tensor([0.0, 7.0, 20.0])
    steps = torch.arange(20) + 0.5
    out = torch.where(ages[:, None] > steps, 40.0, -40.0)
    torch.testing.assert_close(labels.ordinal_number(out, 0), ages)
    assert (labels.ordinal(out, ages, low=0, high=20) < 1e-6).all()
    assert labels.ordinal(-out, ages, low=0, high=20).min() > 1


def test_a_distribution_around_the_label_costs_least():
    ages = torch.tensor([30.0, 61.0])
    years = torch.arange(101.0)
    exact = -((years - ages[:, None]) ** 2) / (2 * 3.0**2)
    kept = {"low": 0, "high": 100, "sigma": 3.0}
    assert (labels.distribution(exact, ages, **kept) < 1e-4).all()
    torch.testing.assert_close(labels.distribution_number(exact, 0), ages)
    moved = -((years - ages[:, None] - 5) ** 2) / (2 * 3.0**2)
    off = labels.distribution(moved, ages, **kept)
    torch.testing.assert_close(off, torch.full((2,), 25 / 18 + 0.5), atol=1e-3, rtol=1e-3)  # KL and 5 years
    assert (labels.distribution(moved, torch.tensor([-1.0, -1.0]), **kept) == 0).all()


def test_class_weights_make_classes_equal_and_images_one_on_average():
    counts = [90, 9, 1]
    weights = labels.class_weights(counts, 1.0)
    masses = [weight * count for weight, count in zip(weights, counts, strict=True)]
    assert masses == pytest.approx([100 / 3] * 3)
    assert labels.class_weights(counts, 0.0) == pytest.approx([1.0] * 3)
    assert labels.class_weights([5, 0], 1.0) == [1.0, 0.0]


def test_positive_weights_are_zeros_over_ones_within_bounds():
    assert labels.positive_weights([10, 1, 0, 50], [50, 1000, 50, 50], 1.0) == [4.0, 20.0, 1.0, 1.0]
    assert labels.positive_weights([10], [50], 0.5) == [2.0]
