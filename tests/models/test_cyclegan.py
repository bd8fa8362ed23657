"""CycleGAN: known counts, a border that is torch's reflection but repeats itself, images on their own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.cyclegan import Generator, ReflectionPad, build_discriminator
from models.pix2pix import instance_norm
from tests.support.counts import parameters
from tests.support.host_reads import HostReads


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_it_has_the_published_counts():
    with torch.device("meta"):
        assert parameters(Generator(9)) == 11_378_179
        assert parameters(build_discriminator()) == 2_764_737


@pytest.mark.parametrize("shape", [(64, 64), (16, 24)])
def test_it_keeps_the_shape_and_every_weight_learns(shape):
    torch.manual_seed(0)
    net = Generator(2, width=4)
    with HostReads() as reads:
        y = net(draw(2, 3, *shape))
        y.square().sum().backward()
    assert reads.found == []
    assert y.shape == (2, 3, *shape)
    assert y.abs().max() <= 1
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 3])
def test_the_border_is_torch_s_reflection(size, layout):
    x = draw(2, 3, 6, 5).to(memory_format=layout).requires_grad_()
    weights = draw(2, 3, 6 + 2 * size, 5 + 2 * size)
    results = []
    for padded in (ReflectionPad(size)(x), F.pad(x, [size] * 4, mode="reflect")):
        (slope,) = torch.autograd.grad((padded * weights).sum(), x)
        results.append((padded, slope))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_images_do_not_see_each_other():
    torch.manual_seed(0)
    net, judge = Generator(1, width=4), build_discriminator(width=4)
    x = draw(3, 3, 32, 32)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(judge(x)[1:2], judge(x[1:2]), rtol=1e-4, atol=1e-5)
    norms = [m for net_ in (net, judge) for m in net_.modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    assert all(m.weight is None and m.num_groups == m.num_channels for m in norms)


@pytest.mark.parametrize("count", [1, 2])
def test_layouts_of_memory_change_no_gradient(count):
    """Instance norm of torch 2.13 gave others for a single image, the batch of the paper."""
    torch.manual_seed(0)
    x, weights = draw(2 * count, 3, 24, 24).chunk(2)
    net, slopes = Generator(1, width=4), []
    for layout in (torch.contiguous_format, torch.channels_last):
        net = net.to(memory_format=layout)
        net.zero_grad()
        (net(x.to(memory_format=layout)) * weights).mean().backward()
        slopes.append([p.grad.clone() for p in net.parameters() if p.dim() > 1])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(one.abs().max()))
    norm = instance_norm(4)
    torch.testing.assert_close(norm(draw(2, 4, 5, 6)), F.instance_norm(draw(2, 4, 5, 6)))
