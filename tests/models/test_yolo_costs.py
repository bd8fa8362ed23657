"""What is said of YOLOv5 before torch is loaded, against the network itself."""

import pytest
import torch

from models.yolo_costs import cost
from models.yolov5 import SIZES, YOLOv5
from tests.support.counts import kept_bytes

PUBLISHED = {"n": 1_872_157, "s": 7_235_389, "m": 21_190_557, "l": 46_563_709, "x": 86_749_405}


@pytest.mark.parametrize("model", [*SIZES])
def test_parameters_are_those_published(model: str) -> None:
    assert cost(model, classes=80)[0] == PUBLISHED[model]


@pytest.mark.parametrize(("p6", "points"), [(True, 0), (False, 5)])
def test_parameters_are_those_of_the_network(p6: bool, points: int) -> None:
    net = YOLOv5("n", classes=3, points=points, p6=p6)
    assert cost("n", classes=3, points=points, p6=p6)[0] == sum(p.numel() for p in net.parameters())


def test_the_memory_of_an_image_is_what_backward_keeps() -> None:
    net = YOLOv5("n", classes=1)
    small, large = (torch.zeros(count, 3, 128, 128) for count in (2, 4))
    kept = (kept_bytes(lambda: net(large)) - kept_bytes(lambda: net(small))) / 2 / 4 / 128**2
    assert kept <= cost("n", classes=1)[1] < 1.1 * kept
