"""The U-Net and its judge: known counts, the field of a patch, dropout by noise, own statistics."""

import pytest
import torch
from torch import nn

from hpc.distributed.comm import Comm
from hpc.engines.batch_norm import convert
from models.pix2pix import PatchDiscriminator, UNet, dropout
from tests.support.counts import parameters
from tests.support.host_reads import HostReads


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UNet(32, width=4)


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_has_the_published_counts():
    with torch.device("meta"):
        net = UNet(256)
        assert parameters(net) == 54_413_955
        assert parameters(PatchDiscriminator(6)) == 2_768_705
    assert net.noise_size == 512 * (2 * 2 + 4 * 4 + 8 * 8)
    assert len([m for m in net.modules() if isinstance(m, nn.Conv2d)]) == 8


@pytest.mark.parametrize("size", [32, 64, 128])
def test_it_gives_images_of_its_size_and_every_weight_learns(size):
    torch.manual_seed(0)
    net, judge = UNet(size, width=4), PatchDiscriminator(6, width=4)
    x = draw(2, 3, size, size)
    with HostReads() as reads:
        y = net(x, draw(2, net.noise_size))
        logits = judge(x, y)
        logits.square().sum().backward()
    assert reads.found == []
    assert y.shape == x.shape
    assert logits.shape == (2, 1, size // 8 - 2, size // 8 - 2)
    assert [n for n, p in (*net.named_parameters(), *judge.named_parameters()) if p.grad is None] == []


def test_a_logit_sees_70_pixels():
    torch.manual_seed(0)
    judge = PatchDiscriminator(3, width=2).eval()
    x = torch.zeros(1, 3, 256, 256, requires_grad=True)
    logits = judge(x)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    seen = x.grad[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_dropout_is_noise_from_outside_of_the_first_three_decoder_blocks(net):
    x, noise = draw(2, 3, 32, 32), draw(2, net.noise_size)
    torch.manual_seed(5)
    first = net(x, noise)
    torch.manual_seed(6)
    torch.testing.assert_close(net(x, noise), first, rtol=0, atol=0)
    assert (net(x, -noise) - first).abs().max() > 1e-3
    kept = net(x, torch.full_like(noise, 9.0))  # nothing is dropped, all is doubled
    assert (kept - net(x)).abs().max() > 1e-3
    # The network of an image depends on its own row alone, at test time too.
    net.eval()
    torch.testing.assert_close(net(x, noise)[1:], net(x[1:], noise[1:]))
    assert (net(x, noise) - net(x)).abs().max() > 1e-4


def test_sides_may_be_multiples_of_its_size(net):
    x = draw(2, 3, 32, 96)
    shapes = net.masks(32, 96)
    assert shapes == [(32, 2, 6), (16, 4, 12), (8, 8, 24)]
    noise = draw(2, sum(channels * height * width for channels, height, width in shapes))
    made, kept = (net(x, each, own_statistics=True) for each in (noise, None))
    assert made.shape == kept.shape == x.shape
    assert (made - kept).abs().max() > 1e-3
    assert sum(c * h * w for c, h, w in net.masks(32, 32)) == net.noise_size


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_keeps_the_mean(rate):
    x, noise = torch.full((100_000,), 3.0), draw(100_000)
    dropped = dropout(x, noise, rate)
    assert (dropped == 0).float().mean() == pytest.approx(rate, abs=0.01)
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 3 / (1 - rate)))
    assert dropped.mean() == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("converted", [False, True])
def test_an_image_s_own_statistics_do_not_depend_on_the_others_and_move_nothing(net, converted):
    if converted:
        convert(net, mode="local", group=0, comm=Comm())
    net.eval()
    for norm in (m for m in net.modules() if hasattr(m, "running_var")):
        norm.running_mean.fill_(0.3)
        norm.running_var.fill_(4.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = draw(3, 3, 32, 32)
    own = net(x, own_statistics=True)
    torch.testing.assert_close(own[1:2], net(x[1:2], own_statistics=True))
    # One image alone in training mode is what the paper's batches of one are.
    torch.testing.assert_close(own[2:], net.train()(x[2:]), rtol=1e-4, atol=1e-5)
    assert (own - net.eval()(x)).abs().max() > 1e-3
    if converted:
        torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm=layer is unknown: use batch or instance"):
        PatchDiscriminator(3, norm="layer")
