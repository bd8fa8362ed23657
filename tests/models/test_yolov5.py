"""YOLOv5: the published counts, fused layers, maps that decode to the boxes they stand for."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.yolo_maps import centres_and_sizes, decode
from models.yolov5 import Conv, YOLOv5
from tests.support.counts import parameters
from tests.support.host_reads import HostReads

PUBLISHED = {  # parameters with 80 classes and with one, GFLOPs at 640 pixels with 80
    "n": (1_872_157, 1_765_270, 4.6),
    "s": (7_235_389, 7_022_326, 16.6),
    "m": (21_190_557, 20_871_318, 49.2),
    "l": (46_563_709, 46_138_294, 109.6),
    "x": (86_749_405, 86_217_814, 206.3),
}
NORM = 8  # operations that the published figures count for each output of batch norm


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def small(**options):
    torch.manual_seed(0)
    return YOLOv5("n", **{"classes": 3, **options})


@pytest.mark.parametrize("size", PUBLISHED)
def test_it_has_the_published_counts(size):
    outputs = []
    with torch.device("meta"):
        net = YOLOv5(size).eval()
        assert parameters(net) == PUBLISHED[size][0]
        assert parameters(YOLOv5(size, classes=1)) == PUBLISHED[size][1]
        for module in net.modules():
            if isinstance(module, Conv):
                module.norm.register_forward_hook(lambda _net, _given, out: outputs.append(out.numel()))
        with FlopCounterMode(display=False) as counted:
            net(torch.empty(1, 3, 640, 640))
    operations = counted.get_total_flops() + NORM * sum(outputs)
    assert operations / 1e9 == pytest.approx(PUBLISHED[size][2], abs=0.05)


@pytest.mark.parametrize(("p6", "strides"), [(False, (8, 16, 32)), (True, (8, 16, 32, 64))])
def test_maps_have_the_strides(p6, strides):
    net = small(points=5, p6=p6)
    with HostReads() as reads:
        maps = net(draw(2, 3, 128, 192))
        sum(each.square().mean() for each in maps).backward()
    assert reads.found == []
    assert net.strides == strides
    assert [each.shape for each in maps] == [(2, 3, 128 // s, 192 // s, 5 + 3 + 10) for s in strides]
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_fused_layers_give_the_same_maps():
    net = small()
    for _ in range(3):
        net(draw(4, 3, 64, 64))  # running statistics that are not those of the start
    net.eval()
    with torch.no_grad():
        before = net(draw(2, 3, 64, 96))
        after = net.fuse()(draw(2, 3, 64, 96))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_objects_are_rare_at_first():
    with torch.no_grad():
        maps = decode(small()(draw(2, 3, 256, 256)), small().anchors, (8, 16, 32), classes=3)
    expected = sum(3 * 2 * 8 * (256 / 640) ** 2 for _ in range(3))  # eight in 640 pixels, for each anchor
    assert float(maps.objectness.sum()) == pytest.approx(expected, rel=0.5)


def test_a_map_decodes_to_the_box_it_was_made_of():
    """The inverse of the formulas puts a box of 20 x 40 pixels at (52, 30) into its cell of stride 16."""
    anchors = torch.tensor([[[16.0, 30.0], [30.0, 30.0]]])
    values = torch.full((1, 2, 4, 6, 5 + 2 + 4), -9.0)
    column, row, offset = 3, 1, torch.tensor([52 / 16 - 3, 30 / 16 - 1])
    wanted = torch.tensor([20.0, 40.0])
    cell = values[0, 1, row, column]
    cell[:2] = torch.logit((offset + 0.5) / 2)
    cell[2:4] = torch.logit((wanted / anchors[0, 1]).sqrt() / 2)
    cell[4], cell[6] = 4.0, 3.0
    cell[7:] = (torch.tensor([50.0, 20.0, 60.0, 45.0]) - torch.tensor([48.0, 16.0] * 2)) / 30
    found = decode([values], anchors, [16], classes=2)
    best = int(found.objectness[0].argmax())
    torch.testing.assert_close(found.boxes[0, best], torch.tensor([42.0, 10.0, 62.0, 50.0]))
    torch.testing.assert_close(found.points[0, best], torch.tensor([[50.0, 20.0], [60.0, 45.0]]))
    assert int(found.classes[0, best].argmax()) == 1
    assert found.boxes.shape == (1, 48, 4)


def test_a_box_stays_near_its_cell_and_anchor():
    centres, sizes = centres_and_sizes(20 * draw(1000, 4), torch.tensor([10.0, 20.0]))
    assert -0.5 <= centres.min() < -0.4 < 1.4 < centres.max() <= 1.5
    assert sizes.min() >= 0
    assert (sizes.max(0).values <= torch.tensor([40.0, 80.0])).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"size": "z"}, "size=z: use one of n, s, m, l, x"),
        ({"classes": 0}, "classes=0, points=0: use classes=1 or more"),
        ({"anchors": [[[1, 2]]]}, r"anchors of shape \[1, 1, 2\]: use \[3, anchors, 2\]"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        YOLOv5(**words)
