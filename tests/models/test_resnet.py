"""ResNets: the published counts less stem and classifier, the maps of the paper, the start at zero."""

import pytest
import torch
from torch import nn

from models.backbones import build_trunk
from models.resnet import Block, ResNet

# Parameters as published for 1000 classes (torchvision's documentation), and inputs of the classifier.
PUBLISHED = {18: (11_689_512, 512), 34: (21_797_672, 512), 50: (25_557_032, 2048)}
STEM_LESS = 64 * 3 * (7 * 7 - 3 * 3)  # a stem of 7x7 has so many more


@pytest.mark.parametrize("depth", PUBLISHED)
def test_it_has_the_published_parameters_but_for_stem_and_classifier(depth):
    published, features = PUBLISHED[depth]
    with torch.device("meta"):
        net = ResNet(depth)
    assert sum(p.numel() for p in net.parameters()) == published - (features + 1) * 1000 - STEM_LESS
    assert net.features == features
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))
    weighted = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    bottleneck = [block for block in net.modules() if isinstance(block, Block)] if depth == 50 else []
    assert len(weighted) + 2 * len(bottleneck) + 1 == depth  # and the classifier


@pytest.mark.parametrize(("depth", "expansion"), [(18, 1), (34, 1), (50, 4)])
def test_every_stage_has_the_shape_of_the_paper(depth, expansion):
    torch.manual_seed(0)
    net = ResNet(depth, width=8).eval()
    with torch.no_grad():
        x = net.stem(torch.rand(1, 3, 112, 112) * 2 - 1)
        assert x.shape == (1, 8, 56, 56)
        for stage, side in zip(net.stages, (56, 28, 14, 7), strict=True):
            x = stage(x)
            assert x.shape[2:] == (side, side)
    assert x.shape[1] == 8 * 8 * expansion == net.features
    assert torch.equal(
        net(torch.zeros(1, 3, 16, 16)).isfinite(), torch.ones(1, net.features, dtype=torch.bool)
    )


@pytest.mark.parametrize("depth", [18, 50])
def test_a_block_begins_as_its_shortcut(depth):
    torch.manual_seed(0)
    net = ResNet(depth, width=8)
    for block in (module for module in net.modules() if isinstance(module, Block)):
        x = torch.rand(2, next(block.body.parameters()).shape[1], 8, 8)
        torch.testing.assert_close(block(x), block.shortcut(x).relu())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_the_memory_layout_changes_neither_features_nor_gradients(name):
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        net, features = build_trunk(name, width=4)
        for block in (module for module in net.modules() if isinstance(module, Block)):
            nn.init.constant_(block.body[-1].weight, 0.2)  # as after some training: all of it counts
        net = net.double().to(memory_format=layout)
        images = (torch.rand(3, 3, 48, 48, dtype=torch.float64) * 2 - 1).to(memory_format=layout)
        output = net(images.requires_grad_())
        assert output.shape == (3, features)
        output.square().sum().backward()
        found.append([output.detach(), images.grad, *(p.grad for p in net.parameters())])
    for plain, last in zip(*found, strict=True):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(plain, last, rtol=1e-7, atol=1e-9)


def test_channels_last_trains_in_float32():
    torch.manual_seed(0)
    net = build_trunk("resnet50", width=8)[0].to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)
    for _ in range(2):
        net(images).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
