"""The moving average against its closed form."""

import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.optim.ema import Ema


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()


def test_equals_the_weighted_sum_of_all_weights() -> None:
    net = _net()
    start = net[0].weight.detach().clone()
    ema = Ema(net, half_life=1000)
    seen = []
    for number in range(1, 9):
        with torch.no_grad():
            net[0].weight.fill_(float(number))
        ema.update(net, clock_after=100 * number, batch=100)
        seen.append(float(number))
    beta = 0.5 ** (100 / 1000)
    expected = beta**8 * start + sum((1 - beta) * beta ** (8 - i) * v for i, v in enumerate(seen, start=1))
    torch.testing.assert_close(ema.module[0].weight, expected)


def test_half_life_is_when_half_of_the_past_is_left() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    ema = Ema(net, half_life=640)
    with torch.no_grad():
        net.weight.fill_(0.0)
    for number in range(1, 11):
        ema.update(net, clock_after=64 * number, batch=64)
    assert ema.module.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_ramp_up_forgets_the_first_weights() -> None:
    ema = Ema(_net(), half_life=10_000, rampup=0.05)
    assert ema.beta(clock_after=64, batch=64) == pytest.approx(0.5 ** (64 / 3.2))
    assert ema.beta(clock_after=200_000, batch=64) == ema.beta(clock_after=400_000, batch=64)
    assert Ema(_net(), half_life=10_000).beta(64, 64) == pytest.approx(0.5**0.0064)


def test_buffers_are_copied_and_the_copy_stays_in_eval_mode() -> None:
    net = _net()
    ema = Ema(net, half_life=1000)
    net(torch.randn(16, 3))
    ema.update(net, clock_after=16, batch=16)
    assert torch.equal(ema.module[1].running_mean, net[1].running_mean)
    assert ema.module[1].num_batches_tracked.item() == 1
    assert not any(m.training for m in ema.module.modules())
    assert not any(p.requires_grad for p in ema.module.parameters())


def test_state_by_name_continues_bit_for_bit() -> None:
    net = _net()
    ema = Ema(net, half_life=500, rampup=0.5)
    with torch.no_grad():
        net[0].weight.normal_()
    ema.update(net, clock_after=100, batch=100)
    other = Ema(_net(), half_life=500, rampup=0.5)
    other.load_state({name: tensor.clone() for name, tensor in ema.state().items()})
    for each in (ema, other):
        each.update(net, clock_after=200, batch=100)
    assert ema.state().keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in ema.state().items())


def test_a_misfit_state_is_refused() -> None:
    ema = Ema(_net(), half_life=500)
    state = dict(ema.state())
    del state["0.bias"]
    with pytest.raises(UserError, match=r"the moving average lacks 0\.bias"):
        ema.load_state(state)
