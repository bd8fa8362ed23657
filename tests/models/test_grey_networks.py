"""VGG and the small CNN: their plans, that they see grey alone, and the grid below their dense layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.backbones import build_trunk
from models.grid import grey, to_grid


@pytest.mark.parametrize(("name", "stages"), [("vgg", (2, 2, 2, 2)), ("vgg_deep", (2, 2, 3, 3))])
def test_the_layers_of_a_vgg_are_those_of_its_plan(name, stages):
    with torch.device("meta"):
        trunk, features = build_trunk(name)
    channels = [m.out_channels for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert channels == [64 * 2**stage for stage, count in enumerate(stages) for _ in range(count)]
    assert {m.kernel_size for m in trunk.modules() if isinstance(m, nn.Conv2d)} == {(3, 3)}
    dense = [(m.in_features, m.out_features) for m in trunk.modules() if isinstance(m, nn.Linear)]
    assert dense == [(512 * 3 * 3, 1024), (1024, 1024)]
    assert features == 1024


def test_the_layers_of_the_cnn_are_those_of_its_plan():
    trunk, features = build_trunk("cnn")
    kinds = [type(m).__name__ for m in trunk.modules() if not [*m.children()]]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d"] * 4 + ["Linear", "ReLU"]
    assert (trunk.dense[0].in_features, features) == (4 * 32 * 4 * 4, 256)
    assert trunk.layers(torch.zeros(1, 1, 64, 64)).shape == (1, 128, 4, 4)


@pytest.mark.parametrize("name", ["vgg", "vgg_deep", "cnn"])
def test_colours_of_one_luma_are_the_same_image(name):
    torch.manual_seed(0)
    trunk = build_trunk(name, width=4)[0].double().eval()
    images = torch.rand(2, 3, 48, 48, dtype=torch.float64) * 2 - 1
    as_grey = grey(images).expand(-1, 3, -1, -1)
    torch.testing.assert_close(trunk(images), trunk(as_grey), rtol=1e-9, atol=1e-9)
    assert (trunk(images) - trunk(-images)).abs().max() > 1e-3
    torch.testing.assert_close(grey(torch.ones(1, 3, 2, 2)), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("name", ["vgg", "vgg_deep", "cnn", "meso4", "mesoinception4"])
def test_memory_layout_does_not_change_the_gradients(name):
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        trunk = build_trunk(name, 4 if name in ("vgg", "vgg_deep", "cnn") else None)[0].double()
        trunk.eval().to(memory_format=layout)
        images = (torch.rand(2, 3, 40, 40, dtype=torch.float64) * 2 - 1).to(memory_format=layout)
        trunk(images.requires_grad_()).square().sum().backward()
        found.append([images.grad, *(p.grad for p in trunk.parameters())])
    for plain, last in zip(*found, strict=True):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(plain, last, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (5, 7), (1, 3), (9, 20)])
def test_the_grid_is_adaptive_average_pooling(size):
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(to_grid(x, 8), F.adaptive_avg_pool2d(x, 8))
    if size == (8, 8):
        assert to_grid(x, 8) is x


def test_the_grid_has_a_deterministic_backward():
    x = torch.rand(1, 2, 5, 5, requires_grad=True)
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        to_grid(x, 3).sum().backward()
    finally:
        torch.use_deterministic_algorithms(was)
    assert x.grad.sum() == pytest.approx(2 * 9, rel=1e-5)
