"""A player's memory layout under DDP."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from hpc.config import Config, Engine
from hpc.dist import Dist
from hpc.player import Player
from tests.ranks import launch


def one_update(here: Dist, pictures: int) -> tuple[list[str], list[str]]:
    """Warnings of one update under DDP; parameters whose gradient has other strides."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 32, 1), nn.Conv2d(32, 32, 3, groups=32))
    other: list[str] = []

    def compare(name: str, p: Tensor, gradient: Tensor) -> None:
        if gradient.stride() != p.stride():
            other.append(name)

    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        player = Player("net", net, Config(engine=Engine(name="ddp")), here)
        for name, p in net.named_parameters():
            p.register_hook(lambda gradient, name=name, p=p: compare(name, p, gradient))
        images = torch.randn(pictures, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        for _ in range(2):
            player.optimizer.zero_grad(set_to_none=True)
            player.engine.net(images).square().mean().backward()
            player.update(1e-3, player.norm_of_gradient())
    return [str(warning.message) for warning in raised], other


# With 16 pictures the kernels on a CPU are others than with fewer.
@pytest.mark.parametrize("pictures", [4, 16])
def test_gradients_have_the_strides_of_their_parameters(pictures: int) -> None:
    assert launch(one_update, 2, pictures) == [([], [])] * 2
