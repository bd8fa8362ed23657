"""Layers of networks that grow: scaling at runtime, pixel norm, deviation of groups, gain of the blur."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.equalised import (
    Blur,
    Conv,
    Dense,
    FromLatents,
    add_deviation,
    double,
    faded,
    halve,
    pixel_norm,
)
from models.resolution import channels_at
from tests.support.host_reads import HostReads


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_weights_have_unit_variance_over_the_rate_and_outputs_he_s(rate):
    torch.manual_seed(0)
    layer = Dense(400, 600, rate=rate)
    assert layer.weight.detach().std() == pytest.approx(1 / rate, rel=0.01)
    x = draw(500, 400)
    assert layer(x).detach().std() == pytest.approx(math.sqrt(2), rel=0.02)
    kept = F.leaky_relu(layer(x), 0.2).square().mean().detach()  # (1 + 0.2^2) / 2 of the square of gain 2
    assert kept == pytest.approx(1.04, rel=0.02)


@pytest.mark.parametrize(
    "layer", [Conv(8, 6, 3), Conv(8, 6, 1, gain=1.0), Dense(12, 5), Conv(8, 6, 3, bias=False)]
)
def test_a_layer_is_the_plain_one_with_scaled_weights(layer):
    x = draw(2, 12) if isinstance(layer, Dense) else draw(2, 8, 5, 5)
    fan_in = layer.weight[0].numel()
    weight = layer.weight * layer.scale
    expected = (
        F.linear(x, weight, layer.bias)
        if isinstance(layer, Dense)
        else F.conv2d(x, weight, layer.bias, padding=layer.weight.shape[-1] // 2)
    )
    torch.testing.assert_close(layer(x), expected)
    assert layer.scale * math.sqrt(fan_in) == pytest.approx(
        1.0 if layer.weight.shape[-1] == 1 else math.sqrt(2)
    )


def test_a_step_of_adam_moves_outputs_by_the_same_share_in_narrow_and_wide_layers():
    shares = []
    for inputs in (4, 400):
        torch.manual_seed(0)
        layer = Conv(inputs, 50, 3)
        x = draw(4, inputs, 6, 6)
        before = layer.weight.detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        layer(x).square().mean().backward()
        optimizer.step()
        shares.append(((layer.weight - before).norm() / before.norm()).item())
    assert shares[0] == pytest.approx(shares[1], rel=0.05)
    assert shares[0] == pytest.approx(0.01, rel=0.1)


def test_the_rate_slows_weights_and_biases_of_adam():
    moved = []
    for rate in (1.0, 0.01):
        torch.manual_seed(0)
        layer = Dense(30, 20, rate=rate)
        x = draw(8, 30)
        before = layer(x).detach()
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-4)
        layer(x).square().mean().backward()
        optimizer.step()
        moved.append((layer(x).detach() - before).norm().item())
    assert moved[1] / moved[0] == pytest.approx(0.01, rel=0.02)


def test_latents_become_a_map_as_by_a_convolution_over_one_pixel():
    torch.manual_seed(0)
    layer = FromLatents(6, 5)
    z = draw(3, 6)
    weight = (layer.weight * layer.scale).transpose(0, 1)
    torch.testing.assert_close(layer(z), F.conv_transpose2d(z[:, :, None, None], weight, layer.bias))
    assert layer.scale == pytest.approx(math.sqrt(2 / (6 * 16)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixel_norm_brings_each_pixel_to_a_mean_square_of_one(dtype):
    x = draw(2, 16, 3, 4).mul(20).to(dtype)
    y = pixel_norm(x)
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.01
    torch.testing.assert_close(y.float().square().mean(1), torch.ones(2, 3, 4), rtol=0, atol=tolerance)
    cosine = F.cosine_similarity(x.float(), y.float(), dim=1)
    torch.testing.assert_close(cosine, torch.ones(2, 3, 4), rtol=0, atol=tolerance)
    assert (pixel_norm(torch.zeros(1, 4, 1, 1)) == 0).all()


def test_the_deviation_is_that_of_numpy_over_each_group():
    x = draw(8, 3, 2, 5)
    y = add_deviation(x, 4)
    assert torch.equal(y[:, :3], x)
    for first in (0, 4):
        expected = x[first : first + 4].numpy().std(0).mean()
        np.testing.assert_allclose(y[first : first + 4, 3].numpy(), expected, rtol=1e-5)
    # The same whatever the batch is cut into, as long as groups are whole.
    torch.testing.assert_close(torch.cat([add_deviation(part, 4) for part in x.split(4)]), y, rtol=0, atol=0)
    same = add_deviation(x[:1].expand(4, -1, -1, -1), 4)
    assert same[:, 3].max() < 1.1e-4  # images that do not differ: the root of eps


def test_a_group_that_is_cut_is_refused():
    with pytest.raises(
        ValueError, match="6 images do not hold whole groups of 4: let batch / ranks and micro_"
    ):
        add_deviation(draw(6, 2, 4, 4), 4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_blur_has_gain_one_and_a_binomial_kernel(layout):
    blur = Blur()
    assert blur.kernel.sum() == 1
    inside = blur(torch.full((1, 3, 6, 6), 7.0).to(memory_format=layout))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full((1, 3, 4, 4), 7.0))
    point = torch.zeros(1, 2, 5, 5)
    point[0, 1, 2, 2] = 16
    expected = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    torch.testing.assert_close(blur(point.to(memory_format=layout))[0, 1, 1:4, 1:4], expected)
    assert (blur(point)[0, 0] == 0).all()
    checks = (-1.0) ** torch.arange(8)  # the highest frequency is gone
    assert blur(checks.expand(1, 1, 8, 8))[..., 1:-1, 1:-1].abs().max() < 1e-6
    assert blur.state_dict() == {}


def test_halving_undoes_doubling_and_fading_is_a_line():
    x = draw(2, 3, 4, 4)
    torch.testing.assert_close(halve(double(x)), x)
    assert double(x).shape == (2, 3, 8, 8)
    assert torch.equal(faded(x, x + 1, 0.0), x)
    torch.testing.assert_close(faded(x, x + 1, 0.25), x + 0.25)
    torch.testing.assert_close(faded(x, x + 1, 1.0), x + 1)


def test_channels_are_those_of_the_paper():
    assert [channels_at(level, 512) for level in range(9)] == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [channels_at(level, 4) for level in range(9)] == [4, 4, 4, 4, 2, 1, 1, 1, 1]


def test_layers_differentiate_twice_and_read_nothing():
    torch.manual_seed(0)
    conv, dense, blur = Conv(3, 4, 3), Dense(5 * 4 * 4, 1), Blur()
    x = draw(4, 3, 8, 8).requires_grad_()
    with HostReads() as reads:
        y = add_deviation(halve(blur(pixel_norm(conv(x)).tanh())), 4)
        (slope,) = torch.autograd.grad(dense(y.flatten(1)).sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert reads.found == []
    assert conv.weight.grad.abs().sum() > 0
    assert dense.weight.grad.abs().sum() > 0
