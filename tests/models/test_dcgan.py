"""DCGAN: the counts of its 64 pixels, sizes by the same rule, the start of its weights."""

import pytest
import torch
from torch import nn

from models.dcgan import Discriminator, Generator
from tests.support.counts import parameters
from tests.support.host_reads import HostReads


def test_at_64_pixels_it_has_the_known_counts():
    with torch.device("meta"):
        assert parameters(Generator()) == 3_576_704
        assert parameters(Discriminator()) == 2_765_568


@pytest.mark.parametrize(("size", "channels"), [(16, 8), (32, 16), (64, 32), (128, 64)])
def test_each_doubling_of_the_size_adds_one_layer(size, channels):
    torch.manual_seed(0)
    generator, discriminator = Generator(size, latents=6, width=4), Discriminator(size, width=4)
    with HostReads() as reads:
        images = generator(torch.randn(3, 6))
        scores = discriminator(images)
        scores.sum().backward()
    assert reads.found == []
    assert images.shape == (3, 3, size, size)
    assert images.abs().max() <= 1
    assert scores.shape == (3,)
    assert generator.layers[0].out_channels == channels == discriminator.layers[-1].in_channels
    assert all(p.grad.abs().sum() > 0 for net in (generator, discriminator) for p in net.parameters())


def test_weights_begin_around_zero_and_factors_of_batch_norm_around_one():
    torch.manual_seed(0)
    net = Generator(width=16)
    weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, nn.ConvTranspose2d)])
    factors = torch.cat([m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    weights, factors = weights.detach(), factors.detach()
    assert weights.mean().abs() < 1e-3
    assert weights.std() == pytest.approx(0.02, rel=0.02)
    assert factors.mean() == pytest.approx(1.0, abs=0.01)
    assert factors.std() == pytest.approx(0.02, rel=0.3)
    assert isinstance(Discriminator(width=4).layers[2], nn.Conv2d)  # no batch norm on the first layer


@pytest.mark.parametrize(
    ("size", "message"),
    [(100, "size=100 is not a power of two: use 64 or 128"), (8, "size=8 is out of range: use a power")],
)
def test_a_size_that_it_cannot_double_its_way_to_is_refused(size, message):
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match=message):
            network(size)
    with pytest.raises(ValueError, match="width=0 is not positive"):
        Generator(width=0)
