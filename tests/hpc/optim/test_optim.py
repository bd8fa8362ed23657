"""Optimizers against torch's plain ones and the paper's algorithm; their state by name."""

import copy
import math

import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Optim
from hpc.optim import build
from hpc.optim.state import export_state, import_state

NAMES = tuple(OPTIMIZERS)
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


def _net(seed: int = 0, device: str = "cpu") -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5))
    return net.to(device, memory_format=torch.channels_last)


def _named(net: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(net.named_parameters())


def _train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for number in steps:
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        images = images.to(next(net.parameters()).device, memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
            net(images).square().mean().backward()
        optimizer.step()


def _reference(config: Optim, net: nn.Module) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    plain = {"lr": config.lr, "foreach": False}
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, **plain)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(groups, momentum=config.momentum, alpha=config.alpha, **plain)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind(groups, betas=tuple(config.betas), eps=config.eps, **plain)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_plain_optimizer_of_torch(name: str, device: str) -> None:
    config = Optim(name=name, lr=0.01, momentum=0.8, nesterov=name == "sgd", weight_decay=0.05)
    ours, theirs = _net(device=device), _net(device=device)
    _train(ours, build.build_optimizer(config, _named(ours)), range(6))
    _train(theirs, _reference(config, theirs), range(6))
    for (where, mine), other in zip(_named(ours), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=lambda m, w=where: f"{w}: {m}")


def test_lamb_equals_the_paper_by_hand() -> None:
    lr, beta1, beta2, eps, decay = 0.1, 0.9, 0.99, 1e-6, 0.01
    weights, grads = [[3.0, 4.0]], [[[0.5, -1.0]], [[0.25, 2.0]], [[-3.0, 0.125]]]
    p = nn.Parameter(torch.tensor(weights))
    config = Optim(name="lamb", lr=lr, betas=[beta1, beta2], eps=eps, weight_decay=decay)
    optimizer = build.build_optimizer(config, [("p", p)])
    x, m, v = list(weights[0]), [0.0, 0.0], [0.0, 0.0]
    for t, grad in enumerate(grads, start=1):
        p.grad = torch.tensor(grad)
        optimizer.step()
        m = [beta1 * a + (1 - beta1) * g for a, g in zip(m, grad[0], strict=True)]
        v = [beta2 * a + (1 - beta2) * g * g for a, g in zip(v, grad[0], strict=True)]
        r = [(a / (1 - beta1**t)) / (math.sqrt(b / (1 - beta2**t)) + eps) for a, b in zip(m, v, strict=True)]
        u = [a + decay * b for a, b in zip(r, x, strict=True)]
        x = [b - lr * math.hypot(*x) / math.hypot(*u) * a for a, b in zip(u, x, strict=True)]
    assert p.detach()[0].tolist() == pytest.approx(x, rel=1e-5)


def test_lamb_scales_each_tensor_by_itself_and_takes_zero_weights_unscaled() -> None:
    big, zero = nn.Parameter(torch.full((2, 2), 8.0)), nn.Parameter(torch.zeros(3))
    optimizer = build.build_optimizer(Optim(name="lamb", lr=0.5, eps=0.0), [("big", big), ("zero", zero)])
    big.grad, zero.grad = torch.ones(2, 2), torch.ones(3)
    optimizer.step()
    # Adam's first step is the sign of the gradient: the first tensor moves by lr |w|, the other by lr.
    torch.testing.assert_close(big.detach(), torch.full((2, 2), 8.0 - 0.5 * 8.0))
    torch.testing.assert_close(zero.detach(), torch.full((3,), -0.5))


def test_novograd_equals_the_paper_by_hand() -> None:
    """Ginsburg et al. (2019), algorithm 1, on two tensors: each has one second moment of its own."""
    lr, beta1, beta2, eps, decay = 0.1, 0.95, 0.5, 1e-3, 0.01
    weights = {"matrix": [[3.0, 4.0]], "vector": [2.0]}
    grads = [{"matrix": [0.3, -0.4], "vector": [2.0]}, {"matrix": [0.6, 0.8], "vector": [-1.0]}]
    grads.append({"matrix": [-3.0, 4.0], "vector": [0.5]})
    params = {name: nn.Parameter(torch.tensor(value)) for name, value in weights.items()}
    config = Optim(name="novograd", lr=lr, betas=[beta1, beta2], eps=eps, weight_decay=decay)
    optimizer = build.build_optimizer(config, list(params.items()))
    for grad in grads:
        for name, p in params.items():
            p.grad = torch.tensor(grad[name]).reshape(p.shape)
        optimizer.step()
    for name, p in params.items():
        x, d = p.detach().new_tensor(weights[name]).flatten().tolist(), decay if p.ndim > 1 else 0.0
        m, v = [0.0] * len(x), None
        for grad in grads:
            square = sum(g * g for g in grad[name])
            v = square if v is None else beta2 * v + (1 - beta2) * square
            m = [
                beta1 * a + (g / (math.sqrt(v) + eps) + d * b)
                for a, g, b in zip(m, grad[name], x, strict=True)
            ]
            x = [b - lr * a for a, b in zip(m, x, strict=True)]
        assert p.detach().flatten().tolist() == pytest.approx(x, rel=1e-5), name
    state = export_state(optimizer, list(params.items()))
    assert state["matrix/exp_avg_sq"].shape == ()


def test_novograds_first_step_has_the_length_of_the_rate_whatever_the_gradient() -> None:
    for size in (1e-6, 1e6):
        p = nn.Parameter(torch.zeros(4))
        optimizer = build.build_optimizer(Optim(name="novograd", lr=0.5, eps=0.0), [("p", p)])
        p.grad = torch.full((4,), size)
        optimizer.step()
        assert p.detach().norm().item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_in_another_memory_layout_reaches_the_right_weights(name: str) -> None:
    grad = torch.arange(24.0).reshape(2, 3, 2, 2) - 11.5
    moved = []
    for layout in (torch.channels_last, torch.contiguous_format):
        p = nn.Parameter(torch.ones(2, 3, 2, 2).contiguous(memory_format=layout))
        optimizer = build.build_optimizer(Optim(name=name, lr=0.1), [("p", p)])
        for _ in range(2):
            p.grad = torch.zeros_like(p, memory_format=torch.contiguous_format).copy_(grad)
            optimizer.step()
        moved.append(p.detach())
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=1e-6)


def test_norms_and_biases_have_no_weight_decay_and_groups_keep_names() -> None:
    groups = build.build_optimizer(Optim(weight_decay=0.3), _named(_net())).param_groups
    decay = {name: group["weight_decay"] for group in groups for name in group["param_names"]}
    assert decay == {name: 0.3 if name in ("0.weight", "3.weight") else 0.0 for name, _ in _named(_net())}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stepped", [0, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_state_by_name_continues_bit_for_bit(name: str, stepped: int, device: str) -> None:
    config = Optim(name=name, lr=0.01, weight_decay=0.05)
    net = _net(device=device)
    optimizer = build.build_optimizer(config, _named(net))
    _train(net, optimizer, range(stepped))
    weights = copy.deepcopy(net.state_dict())
    state = export_state(optimizer, _named(net))
    # as from a file: on the CPU, and not in channels_last
    state = {key: v.cpu().clone(memory_format=torch.contiguous_format) for key, v in state.items()}
    _train(net, optimizer, range(stepped, stepped + 3))

    again = _net(seed=9, device=device)
    again.load_state_dict(weights)
    resumed = build.build_optimizer(config, _named(again))
    _train(again, resumed, range(50, 51))  # something to be overwritten
    again.load_state_dict(weights)
    import_state(resumed, _named(again), state)
    _train(again, resumed, range(stepped, stepped + 3))
    for (where, mine), other in zip(_named(net), again.parameters(), strict=True):
        assert torch.equal(mine, other), where
    ours, theirs = (export_state(o, _named(n)) for o, n in ((optimizer, net), (resumed, again)))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_gradient_keep_no_state_and_may_join_later(name: str) -> None:
    config = Optim(name=name, lr=0.1, weight_decay=0.1)
    old, late = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    named = [("old", old), ("late", late)]
    optimizer = build.build_optimizer(config, named)
    old.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(late.detach(), torch.ones(2, 2))
    state = export_state(optimizer, named)
    assert [key for key in state if key.startswith("late/")] == ["late/unstepped"]
    import_state(optimizer, named, state)
    old.grad, late.grad = torch.ones(2, 2), torch.ones(2, 2)
    optimizer.step()
    alone = nn.Parameter(torch.ones(2, 2))
    fresh = build.build_optimizer(config, [("alone", alone)])
    alone.grad = torch.ones(2, 2)
    fresh.step()
    assert torch.equal(late.detach(), alone.detach())


def test_a_misfit_state_is_refused_by_name() -> None:
    net = _net()
    optimizer = build.build_optimizer(Optim(), _named(net))
    _train(net, optimizer, range(1))
    state = export_state(optimizer, _named(net))
    lacking = {key: v for key, v in state.items() if key != "3.weight/exp_avg"}
    with pytest.raises(UserError, match=r"lacks 3\.weight/exp_avg:"):
        import_state(optimizer, _named(net), lacking)
    with pytest.raises(UserError, match=r"lacks 3\.bias/exp_avg:"):
        import_state(
            optimizer, _named(net), {key: v for key, v in state.items() if not key.startswith("3.bias/")}
        )
    with pytest.raises(UserError, match=r"unknown 4\.weight/step"):
        import_state(optimizer, _named(net), state | {"4.weight/step": torch.zeros(())})
    with pytest.raises(UserError, match=r"3\.weight/exp_avg has shape \[2\]"):
        import_state(optimizer, _named(net), state | {"3.weight/exp_avg": torch.zeros(2)})
    other = build.build_optimizer(Optim(name="sgd"), _named(net))
    with pytest.raises(UserError, match="another network or optimizer"):
        import_state(other, _named(net), state)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_the_table_states_what_each_optimizer_keeps(name: str, momentum: float) -> None:
    spec, p = OPTIMIZERS[name], nn.Parameter(torch.ones(3, 4))
    optimizer = build.build_optimizer(Optim(name=name, momentum=momentum), [("p", p)])
    p.grad = torch.ones_like(p)
    optimizer.step()
    sizes = {key: value.numel() for key, value in optimizer.state[p].items() if value is not None}
    assert sizes.keys() == spec.state_keys(momentum)
    assert {key for key, size in sizes.items() if size == p.numel()} == set(spec.moments_with(momentum))
    assert all(sizes[key] == 1 for key in spec.norms)
    assert set(spec.reads) <= optimizer.defaults.keys()
