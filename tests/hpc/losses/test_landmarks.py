"""The loss of landmarks: values worked out by hand, what is not learnt, and units of images."""

import math

import pytest
import torch

from hpc.losses.detection import Gains, detection_loss
from hpc.losses.landmarks import CURVATURE, WIDTH, wing
from tests.support.host_reads import HostReads
from tests.support.targets import targets

ANCHORS = torch.tensor([[[10.0, 10.0]], [[30.0, 30.0]], [[90.0, 90.0]]])
STRIDES = (8, 16, 32)
ALONE = Gains(box=0, objectness=0, classes=0, landmarks=1)
UNKNOWN = [-1.0, -1.0]


def maps(images, *, points=2, side=64):
    return [
        torch.zeros(images, 1, side // stride, side // stride, 6 + 2 * points).requires_grad_()
        for stride in STRIDES
    ]


def learnt(boxes, points, **keys):
    return targets(boxes, **keys)._replace(points=torch.tensor(points).reshape(len(boxes), -1, 2))


def loss(given, wanted, *, gains=ALONE, unit=1):
    return detection_loss(given, wanted, ANCHORS, STRIDES, classes=1, gains=gains, unit=unit)


def test_the_wing_is_a_logarithm_near_zero_and_a_line_beyond():
    errors = torch.tensor([0.0, -1.0, 4.0, 10.0, -30.0], dtype=torch.float64)
    meet = 10 - 10 * math.log(1 + 10 / 2)
    wanted = [0, 10 * math.log(1.5), 10 * math.log(3), 10 - meet, 30 - meet]
    assert wing(errors, width=10, curvature=2).tolist() == pytest.approx(wanted)
    assert wing(errors / 256).tolist() == pytest.approx([each / 256 for each in wanted])
    edge = torch.tensor([WIDTH * (1 - 1e-9), WIDTH * (1 + 1e-9)], dtype=torch.float64)
    low, high = wing(edge).tolist()
    assert high - low == pytest.approx(0, abs=1e-9)
    slope = torch.zeros(1, dtype=torch.float64).add_(1e-12).requires_grad_()
    wing(slope).sum().backward()
    assert slope.grad.item() == pytest.approx(WIDTH / CURVATURE)


def test_the_loss_by_hand_and_its_unknown_landmarks():
    """A box of 8 pixels in the middle of cell (2, 2) suits the anchor of 10 alone, in that cell alone."""
    box, given = [[16.0, 16.0, 24.0, 24.0]], maps(1)
    boxes = learnt(box, [[17.0, 18.0], UNKNOWN])
    found = loss(given, boxes)
    # at zero every landmark is said to be at the corner of its cell: the next scale has the anchor of 30,
    # whose cells (1, 1), (0, 1), (1, 0) of stride 16 answer too
    corners = [[(16, 16)], [(16, 16), (0, 16), (16, 0)]]
    per_scale = [
        sum(wing(torch.tensor([(x - 17) / 8, (y - 18) / 8])).mean().item() for x, y in cells) / len(cells)
        for cells in corners
    ]
    assert found.landmarks.item() == pytest.approx(sum(per_scale), rel=1e-5)
    assert found.total == found.landmarks
    found.landmarks.backward()
    pushed = given[0].grad[0, 0, 2, 2]
    assert (pushed[6:8] != 0).all()
    assert (pushed[8:] == 0).all()  # nobody knows where the second one is
    assert torch.count_nonzero(given[0].grad) == 2
    assert torch.count_nonzero(given[2].grad) == 0


def test_landmarks_that_are_met_cost_nothing():
    given = maps(1, points=1)
    with torch.no_grad():
        given[0][0, 0, 2, 2, 6:] = torch.tensor([0.3, 0.4])  # of the anchor of 10 pixels
        for row, column in ((1, 1), (0, 1), (1, 0)):
            place = torch.tensor([19.0 - 16 * column, 20.0 - 16 * row])
            given[1][0, 0, row, column, 6:] = place / 30
    assert loss(given, learnt([[16.0, 16.0, 24.0, 24.0]], [[19.0, 20.0]])).landmarks.item() < 1e-5


@pytest.mark.parametrize(
    ("boxes", "points", "ignored"),
    [
        ([[16.0, 16.0, 24.0, 24.0]], [[65.0, 20.0], [20.0, -0.5]], None),  # beyond the image
        ([[16.0, 16.0, 24.0, 24.0]], [UNKNOWN, UNKNOWN], None),
        ([[0.0, 0.0, 0.0, 0.0]], [[5.0, 5.0], [6.0, 6.0]], None),  # a box that is gone
        ([[16.0, 16.0, 24.0, 24.0]], [[17.0, 18.0], [20.0, 21.0]], [True]),
        ([], [], None),
    ],
)
def test_what_is_not_learnt_has_no_gradient(boxes, points, ignored):
    given = maps(2)
    wanted = targets(boxes, ignored=ignored)._replace(points=torch.tensor(points).reshape(len(boxes), 2, 2))
    with HostReads() as reads:
        found = loss(given, wanted, unit=2)
        found.landmarks.backward()
    assert reads.found == []
    assert found.landmarks == 0
    assert all(each.grad is None or torch.count_nonzero(each.grad) == 0 for each in given)


def test_the_mean_of_whole_units_is_that_of_the_batch():
    draw = torch.Generator().manual_seed(7)
    given = [torch.randn(each.shape, generator=draw) for each in maps(8)]
    low = torch.rand(30, 2, generator=draw) * 40
    boxes = torch.cat([low, low + torch.rand(30, 2, generator=draw) * 24 + 3], 1)
    points = torch.rand(30, 2, 2, generator=draw) * 64
    points[torch.rand(30, 2, generator=draw) < 0.4] = -1.0
    owners = (torch.rand(30, generator=draw) ** 2 * 8).long().sort().values
    whole = loss(given, learnt(boxes.tolist(), points.tolist(), owners=owners.tolist()), unit=2)
    parts = []
    for start in (0, 4):
        own = (owners >= start) & (owners < start + 4)
        part = learnt(boxes[own].tolist(), points[own].tolist(), owners=(owners[own] - start).tolist())
        parts.append(loss([each[start : start + 4] for each in given], part, unit=2).landmarks)
    assert whole.landmarks.item() == pytest.approx(sum(parts).item() / 2, rel=1e-6)
    assert whole.landmarks > 0


def test_without_landmarks_there_is_no_such_loss():
    given = [each[..., :6] for each in maps(1)]
    assert loss(given, targets([[16.0, 16.0, 24.0, 24.0]])).landmarks is None
    assert Gains().scaled(scales=4, classes=1, side=320).landmarks == pytest.approx(0.05 * 0.75)
