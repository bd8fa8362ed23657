"""Optimizers by name, and their state as tensors by parameter name. Schedules: `hpc/optim/schedule.py`; EMA:
`hpc/optim/ema.py`.

torch's fused kernels are used where there are any, or NVIDIA Apex's (`hpc/optim/apex.py`). The state leaves
and enters by parameter name, so a checkpoint depends neither on the order of the parameters nor on the engine
that made it.
"""

from typing import Any

import torch

from data_shards.errors import UserError
from hpc.config import apex
from hpc.config.schema import Optim
from hpc.optim import apex as apex_optim
from hpc.optim.lamb import Lamb
from hpc.optim.novograd import NovoGrad
from hpc.optim.state import Named, _kind

NAMES = ("sgd", "adam", "adamw", "lamb", "novograd", "rmsprop")


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
