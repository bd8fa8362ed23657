"""Optimizers by name, and their state as tensors by parameter name. Schedules: `hpc/optim/schedule.py`; EMA:
`hpc/optim/ema.py`.

torch's fused kernels are used where there are any, or NVIDIA Apex's (`hpc/optim/apex.py`). The state leaves
and enters by parameter name, so a checkpoint depends neither on the order of the parameters nor on the engine
that made it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hpc.config import apex
from hpc.config.schema import Optim
from hpc.errors import UserError
from hpc.optim import apex as apex_optim
from hpc.optim.lamb import Lamb
from hpc.optim.novograd import NovoGrad
from hpc.optim.schedule import rate

Named = list[tuple[str, nn.Parameter]]
NAMES = ("sgd", "adam", "adamw", "lamb", "novograd", "rmsprop")
UNSTEPPED = "unstepped"  # stands in for the state of a parameter that no update has touched yet


def build_optimizer(config: Optim, named_parameters: Named) -> torch.optim.Optimizer:
    """The optimizer called `config.name`. One-dimensional parameters (norms, biases) have no weight decay."""
    if config.name not in NAMES:
        raise UserError(f"optim.name={config.name} is not known: use {', '.join(NAMES)}")
    tensors = [(n, p) for n, p in named_parameters if p.ndim > 1]
    vectors = [(n, p) for n, p in named_parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"name": "decayed", "params": tensors, "weight_decay": config.weight_decay},
        {"name": "undecayed", "params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for _, p in named_parameters)
    if config.impl == "apex":
        apex.refuse(config.name)
        apex_optim.refuse(named_parameters)
        optimizer = apex_optim.make(config, groups)
    else:
        optimizer = _make(config, groups, fused)
    optimizer.register_step_pre_hook(_before_step)
    return optimizer


def _make(config: Optim, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    beta1, beta2 = config.betas
    adaptive: dict[str, Any] = {"lr": config.lr, "betas": (beta1, beta2), "eps": config.eps}
    if config.name == "sgd":
        if config.nesterov and not config.momentum:
            raise UserError("optim.nesterov=true needs optim.momentum above 0: set optim.momentum=0.9")
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    if config.name == "adam":
        return torch.optim.Adam(groups, **adaptive, fused=fused)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, **adaptive, fused=fused)
    if config.name == "lamb":
        return Lamb(groups, **adaptive)
    if config.name == "novograd":
        return NovoGrad(groups, **adaptive)
    return torch.optim.RMSprop(
        groups, lr=config.lr, alpha=config.alpha, eps=config.eps, momentum=config.momentum, foreach=True
    )


def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Make gradients and momenta fit for the fused kernels.

    They walk raw memory and do not look at strides: a gradient laid out otherwise than its parameter would be
    applied to the wrong weights without an error. And fused SGD cannot take momenta that only some parameters
    have; zero is what the first step would start from.
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(p.grad)
            if _kind(optimizer) == "sgd" and group["momentum"] and not optimizer.state[p]:
                optimizer.state[p] = {"momentum_buffer": torch.zeros_like(p)}


def _kind(optimizer: torch.optim.Optimizer) -> str:
    """Which keys its state has: sgd, rmsprop, novograd, or adam for all that keep two moments by element."""
    name = type(optimizer).__name__.removeprefix("Fused").lower()
    return name if name in ("sgd", "rmsprop", "novograd") else "adam"


def _state_keys(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> set[str]:
    """What a parameter's state holds once it was stepped."""
    kind = _kind(optimizer)
    if kind == "sgd":
        return {"momentum_buffer"} if group["momentum"] else set()
    if kind == "rmsprop":
        return {"step", "square_avg"} | ({"momentum_buffer"} if group["momentum"] else set())
    if kind == "novograd":
        return {"exp_avg", "exp_avg_sq"}  # the second moment is one number for the whole tensor
    return {"step", "exp_avg", "exp_avg_sq"}


def _group_of(optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, dict[str, Any]]:
    return {p: group for group in optimizer.param_groups for p in group["params"]}


def export_state(optimizer: torch.optim.Optimizer, named_parameters: Named) -> dict[str, Tensor]:
    """The state as `<parameter name>/<key>` -> tensor; the tensors are the live ones.

    A parameter that was never stepped (before the first update, or at a later stage of growth) is listed as
    `<parameter name>/unstepped`, so that a missing name is always an error.
    """
    found: dict[str, Tensor] = {}
    groups = _group_of(optimizer)
    states = apex_optim.states(optimizer) if apex_optim.is_apex(optimizer) else optimizer.state
    for name, p in named_parameters:
        keys, state = _state_keys(optimizer, groups[p]), states.get(p, {})
        if keys and not state:
            found[f"{name}/{UNSTEPPED}"] = torch.zeros((), dtype=torch.uint8)
        for key in sorted(keys & state.keys()):
            found[f"{name}/{key}"] = state[key]
    return found


def import_state(
    optimizer: torch.optim.Optimizer, named_parameters: Named, tensors: dict[str, Tensor]
) -> None:
    """Take back what `export_state` gave, all of it and nothing else; UserError names the first misfit."""
    groups = _group_of(optimizer)
    wanted: dict[str, tuple[str, str]] = {}
    for name, p in named_parameters:
        keys = _state_keys(optimizer, groups[p])
        if keys and f"{name}/{UNSTEPPED}" in tensors:
            keys = {UNSTEPPED}
        wanted |= {f"{name}/{key}": (name, key) for key in keys}
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {extra[0]}"
        raise UserError(
            f"the optimizer state {what}: it was saved by another network or optimizer; "
            "use the run's own config"
        )
    by_name = dict(named_parameters)
    loaded: dict[nn.Parameter, dict[str, Tensor]] = {}
    for full, (name, key) in wanted.items():
        p = by_name[name]
        states = loaded.setdefault(p, {})
        if key != UNSTEPPED:
            one = key == "exp_avg_sq" and _kind(optimizer) == "novograd"
            like = p.detach().new_empty(()) if one else p.detach()
            states[key] = _placed(full, tensors[full], like, key, bool(groups[p].get("fused")))
    if apex_optim.is_apex(optimizer):
        apex_optim.load(optimizer, loaded, {p: name for name, p in named_parameters})
        return
    for p, states in loaded.items():
        optimizer.state[p] = states


def _placed(full: str, saved: Tensor, like: Tensor, key: str, fused: bool) -> Tensor:
    """A copy of `saved` where the optimizer wants it; moments get the memory layout of their parameter."""
    if key == "step":
        return saved.detach().clone().to(like.device if fused else "cpu")
    if saved.shape != like.shape:
        raise UserError(
            f"the optimizer state {full} has shape {list(saved.shape)}, its parameter wants {list(like.shape)}: "
            "use the run's own config"
        )
    return torch.empty_like(like).copy_(saved)
