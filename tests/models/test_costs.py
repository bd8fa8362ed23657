"""What is said of the networks that make images before torch is loaded, against the networks themselves."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import costs, cyclegan, dcgan, progan, stylegan
from models.costs import Cost
from tests.support.counts import kept_bytes, parameters

# Cost and network, of images of so many pixels, of a width and with so many latents
MAKERS = {
    "dcgan": lambda size, width, latents: (
        costs.dcgan_generator(size, width, latents),
        dcgan.Generator(size, width=width, latents=latents),
    ),
    "progan": lambda size, width, latents: (
        costs.progan_generator(level(size), width, latents),
        progan.Generator(size, width=width, latents=latents),
    ),
    "stylegan": lambda size, width, latents: (
        costs.stylegan_generator(level(size), width, latents),
        stylegan.Generator(size, width=width, latents=latents),
    ),
}
JUDGES = {
    "dcgan": lambda size, width: (costs.dcgan_judge(size, width), dcgan.Discriminator(size, width=width)),
    "progan": lambda size, width: (
        costs.growing_judge(level(size), width, blur=False),
        progan.Discriminator(size, width=width),
    ),
    "stylegan": lambda size, width: (
        costs.growing_judge(level(size), width, blur=True),
        progan.Discriminator(size, width=width, blur=True),
    ),
}


def level(size: int) -> int:
    return size.bit_length() - 3


def kept(net: nn.Module, inputs: torch.Tensor, *more: object) -> float:
    """Numbers that an image keeps for the backward pass: what twice as many keep besides."""
    four, eight = (inputs[:count].clone() for count in (4, 8))
    return (kept_bytes(lambda: net(eight, *more)) - kept_bytes(lambda: net(four, *more))) / 16


def work(net: nn.Module, inputs: torch.Tensor, *more: object) -> float:
    with FlopCounterMode(display=False) as counter:
        net(inputs, *more)
    return counter.get_total_flops() / 2 / len(inputs)


def assert_costs(cost: Cost, net: nn.Module, inputs: torch.Tensor, *more: object) -> None:
    assert cost.parameters == parameters(net)
    assert cost.kept == pytest.approx(kept(net, inputs, *more), rel=0.06)
    assert cost.work == pytest.approx(work(net, inputs, *more), rel=0.06)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", MAKERS)
def test_a_generator_costs_what_is_stated(name: str, size: int) -> None:
    cost, net = MAKERS[name](size, 16, 12)
    grown = () if name == "dcgan" else (level(size),)
    assert_costs(cost, net, torch.randn(8, 12), *grown)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_costs_what_is_stated(name: str, size: int) -> None:
    cost, net = JUDGES[name](size, 16)
    grown = () if name == "dcgan" else (level(size),)
    assert_costs(cost, net, torch.randn(8, 3, size, size, requires_grad=True), *grown)


@pytest.mark.parametrize("size", [24, 64])
def test_a_cycle_costs_what_is_stated(size: int) -> None:
    images = torch.randn(8, 3, size, size, requires_grad=True)
    assert_costs(costs.cyclegan_generator(size, 8, 3), cyclegan.Generator(3, width=8), images)
    assert_costs(costs.cyclegan_judge(size, 8), cyclegan.build_discriminator(8), images)


def test_the_networks_of_the_papers_have_their_parameters() -> None:
    assert costs.dcgan_generator(64, 64, 100).parameters == 3_576_704
    assert costs.dcgan_judge(64, 64).parameters == 2_765_568
    assert costs.progan_generator(8, 512, 512).parameters == 23_079_115
    assert costs.growing_judge(8, 512, blur=False).parameters == 23_087_249
    assert round(costs.stylegan_generator(8, 512, 512).parameters / 1e6, 1) == 26.2
