"""The losses of a detector: values worked out by hand, their gradients, and units of images."""

import math

import pytest
import torch
import torch.nn.functional as F

from hpc.losses.detection import Gains, ciou, detection_loss
from tests.support.host_reads import HostReads
from tests.support.targets import targets

ANCHORS = torch.tensor([[[10.0, 10.0]], [[30.0, 30.0]], [[90.0, 90.0]]])
STRIDES = (8, 16, 32)
ONE = Gains(box=1, objectness=1, classes=1)


def maps(images, *, classes=1, side=64, fill=0.0):
    return [
        torch.full((images, 1, side // stride, side // stride, 5 + classes), fill).requires_grad_()
        for stride in STRIDES
    ]


def losses(given, boxes, **keys):
    keys = {"classes": 1, "gains": ONE} | keys
    return detection_loss(given, boxes, ANCHORS, STRIDES, **keys)


def test_the_complete_overlap_of_two_boxes_by_hand():
    same = torch.tensor([[5.0, 5.0, 4.0, 2.0]])
    assert ciou(same, same) == pytest.approx(1.0, abs=1e-6)
    # [0, 4] x [0, 2] and [2, 6] x [0, 2]: overlap 4 / 12, centres 2 apart, hull 6 x 2
    moved = torch.tensor([[4.0, 1.0, 4.0, 2.0]])
    assert ciou(torch.tensor([[2.0, 1.0, 4.0, 2.0]]), moved).item() == pytest.approx(1 / 3 - 4 / 40, abs=1e-6)
    # the same centre, 4 x 2 within 4 x 4: overlap 1 / 2, and the aspect ratios differ
    turn = math.atan(1) - math.atan(2)
    aspect = 4 / math.pi**2 * turn**2
    weight = aspect / (aspect - 0.5 + 1)
    wide, square = torch.tensor([[2.0, 2.0, 4.0, 2.0]]), torch.tensor([[2.0, 2.0, 4.0, 4.0]])
    assert ciou(wide, square).item() == pytest.approx(0.5 - weight * aspect, abs=1e-6)


def test_the_complete_overlap_has_the_gradient_of_its_formula():
    draw = torch.Generator().manual_seed(3)
    one = (torch.rand(8, 4, generator=draw, dtype=torch.float64) + 0.5).requires_grad_()
    other = torch.rand(8, 4, generator=draw, dtype=torch.float64) + 0.5
    found = torch.autograd.grad(ciou(one, other).sum(), one)[0]
    plain = torch.zeros_like(one)
    weight = _weight(one.detach(), other)
    for place in range(4):
        step = torch.zeros_like(one)
        step[:, place] = 1e-6
        high, low = (_held(one.detach() + sign * step, other, weight) for sign in (1, -1))
        plain[:, place] = (high - low) / 2e-6
    assert torch.allclose(found, plain, atol=1e-6)


def _aspect(one, other):
    turn = torch.atan(other[:, 2] / (other[:, 3] + 1e-7)) - torch.atan(one[:, 2] / (one[:, 3] + 1e-7))
    return 4 / math.pi**2 * turn.square()


def _overlap(one, other):
    low = torch.maximum(one[:, :2] - one[:, 2:] / 2, other[:, :2] - other[:, 2:] / 2)
    high = torch.minimum(one[:, :2] + one[:, 2:] / 2, other[:, :2] + other[:, 2:] / 2)
    both = (high - low).clamp(min=0).prod(1)
    return both / (one[:, 2:].prod(1) + other[:, 2:].prod(1) - both + 1e-7)


def _weight(one, other):
    aspect = _aspect(one, other)
    return aspect / (aspect - _overlap(one, other) + 1 + 1e-7)


def _held(one, other, weight):
    """The formula with the weight of the aspect ratio held, which has no gradient."""
    aspect = _aspect(one, other)
    return ciou(one, other) + _weight(one, other) * aspect - weight * aspect


def test_cells_without_boxes_learn_that_there_are_none():
    found = losses(maps(2), targets([]))
    assert found.box == 0
    assert found.classes == 0
    assert found.objectness.item() == pytest.approx((4 + 1 + 0.4) * math.log(2), rel=1e-6)


def test_a_box_that_is_met_exactly_costs_nothing():
    given = maps(1)
    box = targets([[15, 15, 25, 25]])  # centre (20, 20): cell (2, 2) of stride 8, its middle
    # at zero logits the prediction of cell (2, 2) is its centre and the anchor's size
    found = losses(given, box, gains=Gains(box=1, objectness=0, classes=0))
    # the middle of the cell has no nearest neighbour: scale 8 has one match, exact; the anchor of 30 pixels
    # has cells (1, 1), (0, 1), (1, 0) of stride 16, the one of 90 does not fit
    centre, size = torch.tensor([20 / 16, 20 / 16]), torch.tensor([10 / 16, 10 / 16])
    others = [
        1 - ciou(torch.tensor([x + 0.5, y + 0.5, 30 / 16, 30 / 16]), torch.cat([centre, size])).item()
        for x, y in ((1, 1), (0, 1), (1, 0))
    ]
    assert found.box.item() == pytest.approx(sum(others) / 3, rel=1e-5)


def test_the_objectness_learns_the_overlap_that_is_reached():
    given = maps(1)
    wanted = losses(given, targets([[15, 15, 25, 25]])).objectness
    fine = torch.zeros(8, 8)
    fine[2, 2] = 1.0
    middle = torch.zeros(4, 4)
    for x, y in ((1, 1), (0, 1), (1, 0)):
        predicted = torch.tensor([x + 0.5, y + 0.5, 30 / 16, 30 / 16])
        middle[y, x] = ciou(predicted, torch.tensor([1.25, 1.25, 0.625, 0.625])).clamp(min=0)
    by_hand = 4 * _bce(fine) + _bce(middle) + 0.4 * _bce(torch.zeros(2, 2))
    assert wanted.item() == pytest.approx(by_hand.item(), rel=1e-6)
    wanted.backward()
    assert all(torch.count_nonzero(each.grad[..., :4]) == 0 for each in given)  # the target has no gradient


def _bce(wanted):
    return F.binary_cross_entropy_with_logits(torch.zeros_like(wanted), wanted)


def test_of_two_boxes_in_a_cell_the_better_overlap_stands():
    boxes = [[15, 15, 25, 25], [16, 16, 24, 24]]
    one, both = losses(maps(1), targets(boxes[:1])), losses(maps(1), targets(boxes))
    swapped = losses(maps(1), targets(boxes[::-1]))
    assert both.objectness == swapped.objectness
    fine = 4 * (both.objectness - one.objectness).abs()
    assert fine.item() < 0.1  # the finest scale is unchanged; the overlaps of the next differ


def test_cells_of_ignored_boxes_learn_nothing():
    given = maps(1)
    losses(given, targets([[8, 8, 40, 40]], ignored=[True])).total.backward()
    fine = given[0].grad[0, 0, :, :, 4]
    assert torch.count_nonzero(fine[1:5, 1:5]) == 0
    assert torch.count_nonzero(fine) == 64 - 16
    assert torch.count_nonzero(given[0].grad[..., :4]) == 0


def test_a_target_in_an_ignored_box_stays_one():
    given = maps(1)
    both = targets([[8, 8, 40, 40], [15, 15, 25, 25]], ignored=[True, False])
    losses(given, both, gains=Gains(box=0, objectness=1, classes=0)).total.backward()
    assert given[0].grad[0, 0, 2, 2, 4] < 0  # towards 1


def test_classes_are_learnt_with_smoothing_where_they_are_known():
    given = maps(1, classes=4)
    keys = {"classes": 4, "gains": Gains(box=0, objectness=0, classes=1, smoothing=0.2)}
    box = targets([[15, 15, 25, 25]], classes=[2])
    found = losses(given, box, **keys)
    # logits of 0: the cross-entropy is log 2 whatever the target; twice, scales 8 and 16
    assert found.classes.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    found.classes.backward()
    push = given[0].grad[0, 0, 2, 2, 5:]
    assert push.tolist() == pytest.approx([0.4 / 4, 0.4 / 4, -0.4 / 4, 0.4 / 4], rel=1e-5)
    assert losses(maps(1, classes=4), targets([[15, 15, 25, 25]], classes=[-1]), **keys).classes == 0


def test_the_mean_of_whole_units_is_that_of_the_batch():
    """Uneven counts: any cut of the batch into whole units has the same mean."""
    draw = torch.Generator().manual_seed(7)
    given = [torch.randn(each.shape[0], *each.shape[1:], generator=draw) for each in maps(8)]
    low = torch.rand(30, 2, generator=draw) * 40
    boxes = torch.cat([low, low + torch.rand(30, 2, generator=draw) * 24 + 3], 1)
    owners = (torch.rand(30, generator=draw) ** 2 * 8).long().sort().values
    whole = losses(given, targets(boxes.tolist(), owners=owners.tolist()), unit=2)
    parts = []
    for start in (0, 4):
        own = (owners >= start) & (owners < start + 4)
        part = targets(boxes[own].tolist(), owners=(owners[own] - start).tolist())
        parts.append(losses([each[start : start + 4] for each in given], part, unit=2).total)
    assert whole.total.item() == pytest.approx(sum(parts).item() / 2, rel=1e-6)
    with pytest.raises(ValueError, match="whole units"):
        losses(given, targets([]), unit=3)


def test_gains_are_scaled_as_published():
    found = Gains().scaled(scales=3, classes=80, side=640)
    assert (found.box, found.objectness, found.classes) == (0.05, 1.0, 0.5)
    small = Gains().scaled(scales=4, classes=1, side=320)
    assert (small.box, small.objectness) == (0.05 * 0.75, 0.25 * 0.75)
    assert small.classes == pytest.approx(0.5 / 80 * 0.75)


def test_boxes_that_are_gone_leave_gradients_finite_and_nothing_is_read_from_the_device():
    given, boxes = maps(2, fill=-30.0), targets([[0, 0, 0, 0], [3, 3, 3, 9]], owners=[0, 1])
    with HostReads() as reads:
        losses(given, boxes, unit=2).total.backward()
    assert reads.found == []
    assert all(torch.isfinite(each.grad).all() for each in given)
