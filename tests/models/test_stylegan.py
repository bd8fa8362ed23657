"""StyleGAN: counts, AdaIN, noise from outside, style mixing, truncation, levels that come in smoothly."""

import pytest
import torch

from models.progan import Discriminator
from models.stylegan import Generator, Styled, adain, crossovers
from tests.support.counts import parameters
from tests.support.growing_nets import gap_below, without_gradient
from tests.support.host_reads import HostReads


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Generator(32, width=8, latents=6)
    for name, parameter in net.named_parameters():
        if name.endswith("strength"):
            torch.nn.init.normal_(parameter)  # as after some training
    net.track(draw(64, 6, seed=9), keep=0.0)
    return net


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_has_the_published_counts():
    with torch.device("meta"):
        net = Generator(1024)
        assert parameters(net) == 26_219_627  # the paper: 26.2 M
        assert parameters(net.mapping) == 8 * (512 * 512 + 512)
        assert parameters(Discriminator(1024, blur=True)) == 23_087_249  # the paper: 23.1 M
    assert net.num_layers(8) == 18
    assert net.noise_size(8) == 2 * sum(4**n for n in range(2, 11))


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_it_makes_images_of_each_level(net, level):
    assert net(draw(3, 6), level, 0.5, noise=draw(3, net.noise_size(level))).shape == (
        3,
        3,
        *[4 << level] * 2,
    )


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_begins_as_the_one_below_and_ends_as_itself(net, level):
    z, noise = draw(3, 6), draw(3, net.noise_size(level))

    def make(level: int, fade: float) -> torch.Tensor:
        return net(z, level, fade, noise=noise[:, : net.noise_size(level)])

    with torch.no_grad():
        assert gap_below(make, level) < 1e-5
        assert (make(level, 1 - 1e-7) - make(level, 1.0)).abs().max() < 1e-5
        assert (make(level, 0.0) - make(level, 1.0)).abs().max() > 1e-2


def test_what_is_not_reached_has_no_gradient(net):
    net.zero_grad(set_to_none=True)
    with HostReads() as reads:
        noise = draw(3, net.noise_size(2))
        net(
            draw(3, 6), 2, 0.5, noise=noise, other=draw(3, 6), crossover=crossovers(draw(3, 2), 6)
        ).sum().backward()
        net.track(draw(8, 6))
    assert reads.found == []
    assert without_gradient(net) == {"blocks.2", "colours.0", "colours.3"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adain_gives_each_map_the_mean_and_deviation_of_the_style(dtype):
    x, factor, shift = draw(2, 5, 8, 6) * 30 + 7, draw(2, 5, seed=2), draw(2, 5, seed=3)
    y = adain(x.to(dtype), factor.to(dtype), shift.to(dtype))
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(y.float().mean((2, 3)), shift, rtol=0, atol=tolerance)
    torch.testing.assert_close(y.float().std((2, 3), correction=0), factor.abs(), rtol=0, atol=tolerance)
    assert torch.equal(
        adain(torch.full((1, 1, 4, 4), 3.0), torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1, 1, 4, 4)
    )


def test_a_style_begins_with_a_factor_around_one_and_noise_at_zero():
    torch.manual_seed(0)
    styled = Styled(200, 50)
    factor, shift = styled.style(draw(100, 50)).detach().chunk(2, 1)
    assert factor.mean() == pytest.approx(1.0, abs=0.02)
    assert shift.mean() == pytest.approx(0.0, abs=0.02)
    x, w = draw(1, 200, 4, 4), draw(1, 50)
    torch.testing.assert_close(styled(x, w, draw(1, 1, 4, 4)), styled(x, w, None))


def test_noise_comes_from_outside_alone_and_images_do_not_see_each_other(net):
    z, noise = draw(3, 6), draw(3, net.noise_size(2))
    torch.manual_seed(3)
    images = net(z, 2, noise=noise)
    torch.manual_seed(4)
    torch.testing.assert_close(net(z, 2, noise=noise), images, rtol=0, atol=0)
    torch.testing.assert_close(net(z[1:2], 2, noise=noise[1:2]), images[1:2], rtol=1e-4, atol=1e-5)
    assert (net(z, 2) - images).abs().max() > 1e-2
    assert (net(z, 2, noise=-noise) - images).abs().max() > 1e-2


@pytest.mark.parametrize("first", [1, 3, 6])
def test_styles_of_the_second_latents_hold_from_the_crossover_on(net, first):
    z, other = draw(3, 6), draw(3, 6, seed=2)
    w = net.styles(z, 2, other=other, crossover=torch.full((3,), first))
    assert w.shape == (3, 6, 6)
    for layer in range(6):
        torch.testing.assert_close(w[:, layer], net.mapping(z if layer < first else other))
    image = net(z, 2, other=other, crossover=torch.full((3,), first))
    assert ((image - net(z, 2)).abs().max() > 1e-3) == (first < 6)
    own = net.styles(z, 2, other=other, crossover=torch.tensor([1, 6, 2]))
    torch.testing.assert_close(own[1], net.styles(z, 2)[1])


def test_crossovers_are_even_over_the_layers_for_nine_in_ten():
    found = crossovers(draw(50_000, 2), 6)
    shares = torch.bincount(found, minlength=7) / 50_000
    assert shares[0] == 0
    torch.testing.assert_close(shares[1:6], torch.full((5,), 0.18), rtol=0, atol=0.01)
    assert shares[6] == pytest.approx(0.1, abs=0.01)
    assert crossovers(torch.tensor([[-9.0, 9.0], [-9.0, -9.0]]), 6).tolist() == [5, 1]
    assert crossovers(draw(100, 2), 2).unique().tolist() == [1, 2]


def test_truncation_at_0_is_the_mean_image_and_at_1_changes_nothing(net):
    z, noise = draw(3, 6), draw(1, net.noise_size(2)).expand(3, -1)
    mean = net.synthesise(net.mean_w.expand(1, 6, -1), 2, noise=noise[:1])
    torch.testing.assert_close(
        net(z, 2, noise=noise, truncation=0.0), mean.expand(3, -1, -1, -1), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(net(z, 2, noise=noise, truncation=1.0), net(z, 2, noise=noise))
    half = net.styles(z, 2, truncation=0.5, cutoff=4)
    torch.testing.assert_close(half[:, :4], (net.styles(z, 2)[:, :4] + net.mean_w) / 2)
    torch.testing.assert_close(half[:, 4:], net.styles(z, 2)[:, 4:])


def test_the_mean_of_w_is_a_running_one_in_the_weights_of_a_checkpoint():
    torch.manual_seed(0)
    net = Generator(8, width=4, latents=5)
    w = net.mapping(draw(16, 5)).mean(0)
    net.track(draw(16, 5), keep=0.9)
    torch.testing.assert_close(net.mean_w, 0.1 * w)
    net.track(draw(16, 5), keep=0.9)
    torch.testing.assert_close(net.mean_w, 0.19 * w)
    torch.testing.assert_close(net.state_dict()["mean_w"], net.mean_w)


def test_the_mapping_ignores_the_length_of_latents_and_learns_a_hundredth(net):
    z = draw(4, 6)
    torch.testing.assert_close(net.mapping(3 * z), net.mapping(z), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    layer = Generator(4, width=4, latents=200).mapping.layers[0]
    assert layer.weight.detach().std() == pytest.approx(100, rel=0.02)
    assert layer.rate == 0.01


def test_gradients_of_gradients_flow_through_the_generator():
    torch.manual_seed(0)
    net = Generator(8, width=4, latents=5)
    w = net.styles(draw(2, 5), 1).detach().requires_grad_()
    (slope,) = torch.autograd.grad(net.synthesise(w, 1).square().sum(), w, create_graph=True)
    slope.square().sum().backward()
    assert net.blocks[0].first.weight.grad.abs().sum() > 0
