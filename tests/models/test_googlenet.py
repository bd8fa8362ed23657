"""The trunk against the published facts: parameter count, shapes of every stage, features."""

import pytest
import torch
from torch import nn

from models.googlenet import BLOCKS, FEATURES, PARAMETERS, GoogLeNet
from models.small import Small

CHANNELS = {"stem": 192, "3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832} | {
    "5a": 832,
    "5b": 1024,
}
SIDE = {224: {"stem": 28, "3": 28, "4": 14, "5": 7}, 112: {"stem": 14, "3": 14, "4": 7, "5": 4}}


@pytest.fixture(scope="module")
def net() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet()


def test_it_has_the_published_number_of_parameters(net):
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS == 5_599_904
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 57
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.1)}
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("size", [112, 224])
def test_every_stage_has_the_shape_of_the_paper(net, size):
    shapes = {}
    watched = {"stem": net.stem} | dict(net.blocks.items())
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: shapes.__setitem__(name, tuple(out.shape))
        )
        for name, module in watched.items()
    ]
    with torch.no_grad():
        features = net.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    side = {name: SIDE[size][name if name == "stem" else name[0]] for name in ("stem", *BLOCKS)}
    assert shapes == {name: (1, CHANNELS[name], side[name], side[name]) for name in side}
    assert features.shape == (1, FEATURES)


def test_initial_features_keep_their_scale(net):
    torch.manual_seed(1)
    with torch.no_grad():
        features = net.train()(torch.rand(8, 3, 112, 112) * 2 - 1)
    assert 0.05 < features.std() < 5
    assert (features >= 0).all()


@pytest.mark.parametrize("trunk", [GoogLeNet, Small])
def test_memory_layout_does_not_change_the_features(trunk):
    torch.manual_seed(2)
    net = trunk().eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        plain = net(images)
        last = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)
    assert plain.shape == (2, trunk.features)
