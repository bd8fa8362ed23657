"""Gradients that are not finite: they move no weights, moments or statistics, and nothing reads the flag."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Config, Ema, Optim
from hpc.distributed.comm import Comm
from hpc.engines.batch_norm import collecting, norms
from hpc.optim import build
from hpc.optim.guard import guarded
from hpc.optim.state import export_state
from hpc.training.player import Player

FUSED = ("sgd", "adam", "adamw")
BAD = (math.nan, math.inf)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def _steps(name: str, gradients: list[float | None]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and state after a step by each of the gradients (None = left out)."""
    net = _net()
    named = list(net.named_parameters())
    optimizer = build.build_optimizer(Optim(name=name, lr=0.1, momentum=0.9, weight_decay=0.01), named)
    for gradient in gradients:
        if gradient is None:
            continue
        for _, p in named:
            p.grad = torch.full_like(p, 0.1)
            p.grad.view(-1)[-1] = gradient
        with guarded(optimizer, torch.tensor(math.isfinite(gradient))):
            optimizer.step()
    return net.state_dict(), export_state(optimizer, named)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("place", [0, 1, 2])  # 0: the first step, which makes the state
def test_a_fused_step_is_skipped_exactly(name: str, place: int, bad: float) -> None:
    gradients: list[float | None] = [0.3, -0.2]
    gradients.insert(place, bad)
    found = _steps(name, gradients)
    gradients[place] = None
    for mine, other in zip(found, _steps(name, gradients), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in mine.items())


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - set(FUSED)))
@pytest.mark.parametrize("place", [0, 2])
def test_any_other_step_uses_no_gradient(name: str, place: int, bad: float) -> None:
    gradients: list[float | None] = [0.3, -0.2]
    gradients.insert(place, bad)
    for tensors in _steps(name, gradients):
        assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_flag_changes_no_finite_step(name: str) -> None:
    guarded_ones = _steps(name, [0.3, -0.2, 0.1])
    net = _net()
    named = list(net.named_parameters())
    optimizer = build.build_optimizer(Optim(name=name, lr=0.1, momentum=0.9, weight_decay=0.01), named)
    for gradient in (0.3, -0.2, 0.1):
        for _, p in named:
            p.grad = torch.full_like(p, 0.1)
            p.grad.view(-1)[-1] = gradient
        optimizer.step()
    for mine, other in zip(guarded_ones, (net.state_dict(), export_state(optimizer, named)), strict=True):
        assert all(torch.equal(tensor, other[key]) for key, tensor in mine.items())


def _player(**changes: Any) -> Player:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return Player("net", net, Config(ema=Ema(half_life=100), **changes), Comm())


def _update(player: Player, images: Tensor) -> None:
    player.optimizer.zero_grad(set_to_none=True)
    with collecting(norms(player.module)):
        player.module(images).square().mean().backward()
    player.update(0.1, player.norm_of_gradient())
    player.average(16, 16)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_player_survives_an_update_that_is_not_finite(name: str, clip: float) -> None:
    player = _player(optim=Optim(name=name, clip=clip))
    images = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    _update(player, images)
    before = copy.deepcopy(player.module.state_dict())
    _update(player, images.where(torch.arange(16)[:, None] > 0, math.nan))
    after = player.state()
    for key in ("1.running_mean", "1.running_var"):
        assert torch.equal(after.weights[key], before[key])
    if name in FUSED:
        assert all(torch.equal(after.weights[key], before[key]) for key in ("0.weight", "2.bias"))
    assert after.ema is not None
    for tensors in after:
        assert all(tensor.isfinite().all() for tensor in tensors.values())
