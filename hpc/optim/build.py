"""Builds the optimizer that the config names, with torch's fused kernels where there are any, or with Apex's.

The names and what each optimizer reads are in `hpc/config/optimizers.py`, the state by parameter name in
`hpc/optim/state.py`, the rate in `hpc/optim/schedule.py`.
"""

from typing import Any

import torch

from hpc.config import apex
from hpc.config.optimizers import MOMENTUM, OPTIMIZERS
from hpc.config.schema import Optim
from hpc.optim import apex as apex_optim
from hpc.optim.groups import Groups, split
from hpc.optim.lamb import Lamb
from hpc.optim.novograd import NovoGrad
from hpc.optim.state import Named, spec_of

OWN = {kind.__name__: kind for kind in (Lamb, NovoGrad)}


def build_optimizer(
    config: Optim, named_parameters: Named, by_pattern: Groups | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer `config.name`. One-dimensional parameters (norms, biases) have no weight decay.

    by_pattern: settings of parameters by patterns of their names (None = none)
    """
    groups = split(named_parameters, by_pattern or {}, config.weight_decay, biases=config.warmup_bias > 0)
    if config.impl == "apex":
        apex.refuse(config.name)
        apex_optim.refuse(named_parameters)
        optimizer = apex_optim.make(config, groups, settings(config))
    else:
        optimizer = _make(config, groups)
    optimizer.register_step_pre_hook(_before_step)
    return optimizer


def settings(config: Optim) -> dict[str, Any]:
    """Return the arguments that the optimizer's class takes from the config; weight decay is a group's."""
    values = {key: getattr(config, key) for key in ("lr", *OPTIMIZERS[config.name].reads)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _make(config: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build torch's or our own optimizer from groups of named parameters."""
    spec, arguments = OPTIMIZERS[config.name], settings(config)
    if spec.kernels == "fused":
        parameters = [p for group in groups for _, p in group["params"]]
        arguments["fused"] = all(
            p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters
        )
    elif spec.kernels:
        arguments[spec.kernels] = True
    kind = OWN.get(spec.kind) or getattr(torch.optim, spec.kind)
    optimizer: torch.optim.Optimizer = kind(groups, **arguments)
    return optimizer


def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Make gradients and momenta fit for the fused kernels.

    The kernels walk raw memory and do not look at strides: a gradient laid out otherwise than its parameter
    would be applied to the wrong weights without an error. And fused SGD cannot take momenta that only some
    parameters have; zero is what the first step would start from.
    """
    sgd = spec_of(optimizer).name == "sgd"
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(p.grad)
            if sgd and group["momentum"] and not optimizer.state[p]:
                optimizer.state[p] = {MOMENTUM: torch.zeros_like(p)}
