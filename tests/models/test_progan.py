"""ProGAN: the counts of 1024 pixels, levels that come in without a jump, parts that take no part."""

import pytest
import torch

from hpc.losses import adversarial
from models.equalised import halve, pixel_norm
from models.progan import Discriminator, Generator, top_level
from tests.support.counts import parameters
from tests.support.growing_nets import gap_below, without_gradient
from tests.support.host_reads import HostReads


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    return Generator(32, width=8, latents=6), Discriminator(32, width=8)


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_has_the_published_counts_and_a_width_to_reduce():
    with torch.device("meta"):
        assert parameters(Generator(1024)) == 23_079_115
        assert parameters(Discriminator(1024)) == 23_087_249
        assert parameters(Generator(1024, width=128)) < 23_079_115 / 10


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_it_makes_and_judges_images_of_each_level(nets, level):
    generator, discriminator = nets
    images = generator(draw(4, 6), level, 0.5)
    assert images.shape == (4, 3, 4 << level, 4 << level)
    assert discriminator(images, level, 0.5).shape == (4,)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_begins_as_the_one_below_and_ends_as_itself(nets, level):
    generator, discriminator = nets
    z, x = draw(4, 6), draw(4, 3, 4 << level, 4 << level)
    with torch.no_grad():
        assert gap_below(lambda *at: generator(z, *at), level) < 1e-5
        start, below = discriminator(x, level, 0.0), discriminator(halve(x), level - 1, 1.0)
        assert (start - below).abs().max() < 1e-5
        for call in (lambda fade: generator(z, level, fade), lambda fade: discriminator(x, level, fade)):
            assert (call(1 - 1e-7) - call(1.0)).abs().max() < 1e-5
            assert (call(0.0) - call(1.0)).abs().max() > 1e-3


@pytest.mark.parametrize(("fade", "absent"), [(1.0, {0, 1, 3}), (0.5, {0, 3})])
def test_what_is_not_reached_has_no_gradient(nets, fade, absent):
    for net, inputs in zip(nets, (draw(4, 6), draw(4, 3, 16, 16)), strict=True):
        net.zero_grad(set_to_none=True)
        net(inputs, 2, fade).sum().backward()
        assert without_gradient(net) == {f"colours.{level}" for level in absent} | {"blocks.2"}


def test_the_generator_normalises_latents_and_pixels(nets):
    generator, _ = nets
    z, seen = draw(2, 6), []
    hooks = [
        block.second.register_forward_hook(lambda m, i, o: seen.append(i[0])) for block in generator.blocks
    ]
    images = generator(z, 3)
    torch.testing.assert_close(generator(5 * z, 3), images, rtol=1e-4, atol=1e-5)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 6
    for x in seen:
        torch.testing.assert_close(x.square().mean(1), torch.ones_like(x[:, 0]), rtol=0, atol=1e-3)
        torch.testing.assert_close(pixel_norm(x), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("blur", [False, True])
def test_the_judge_sees_groups_alone_differentiates_twice_and_reads_nothing(blur):
    torch.manual_seed(0)
    net = Discriminator(16, width=4, blur=blur, group=2)
    x = draw(4, 3, 16, 16).requires_grad_()
    with HostReads() as reads:
        scores = net(x, 2, 0.3)
        (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert reads.found == []
    torch.testing.assert_close(torch.cat([net(part, 2, 0.3) for part in x.split(2)]), scores)
    assert (net(x[[0, 2, 1, 3]], 2, 0.3)[0] - scores[0]).abs() > 1e-7
    assert net.blocks[0].first.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="3 images do not hold whole groups of 2"):
        net(x[:3], 2)


@pytest.mark.parametrize("penalty", ["r1", "slope_penalty"])
def test_slopes_of_whole_groups_are_those_of_the_batch(penalty):
    """Gradients of the weights, so that ranks and micro batches of whole groups change nothing."""
    torch.manual_seed(0)
    net = Discriminator(8, width=4, group=2).double()
    real, fake, noise = (
        draw(8, 3, 8, 8).double(),
        draw(8, 3, 8, 8, seed=2).double(),
        draw(8, 1, seed=3).double(),
    )

    def gradients(rows):
        if penalty == "r1":
            points = real[rows].clone().requires_grad_()
            loss = adversarial.r1(net(points, 1, 0.5), points)
        else:
            points = adversarial.between(real[rows], fake[rows], noise[rows])
            loss = adversarial.slope_penalty(net(points, 1, 0.5), points)
        found = torch.autograd.grad(loss, [*net.parameters()], allow_unused=True)
        return torch.cat([slope.flatten() for slope in found if slope is not None])

    whole = gradients(slice(None))
    parts = torch.stack([gradients(slice(low, low + 2)) for low in range(0, 8, 2)]).mean(0)
    assert whole.abs().max() > 0
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-7)


def test_a_resolution_is_a_power_of_two_up_to_1024():
    assert [top_level(size) for size in (4, 8, 1024)] == [0, 1, 8]
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match="resolution=96 is not a power of two: use 64 or 128"):
            network(96)
        with pytest.raises(
            ValueError, match="resolution=2048 is out of range: use a power of two from 4 to 1024"
        ):
            network(2048)
