"""NVIDIA Apex's fused optimizers in place of torch's, with their state under torch's names.

Apex keeps one step count for a whole group, and NovoGrad's second moments as a list of the group: a state
leaves and enters as torch's own would, by parameter. The settings are those under which Apex computes what
`hpc/optim/lamb.py`, `hpc/optim/novograd.py` and torch's optimizers compute. Whether Apex is there:
`hpc/config/apex.py`.
"""

import functools
import importlib
import math
import socket
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.config.apex import BUILD
from hpc.config.optimizers import MOMENTUM, OPTIMIZERS, Optimizer
from hpc.config.schema import Optim

States = dict[nn.Parameter, dict[str, Tensor]]
Groups = list[dict[str, Any]]

# Arguments with which Apex computes what torch and we compute, beside those that `hpc/optim/build.py` gives.
EXTRA: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"adam_w_mode": False},
    "adamw": {"adam_w_mode": True},
    # Clipping is optim.clip's; and the paper scales every tensor, those without weight decay too.
    "lamb": {"max_grad_norm": math.inf, "use_nvlamb": True},
    # Algorithm 1 of the paper: weight decay inside the moment, no averaging factor, no bias correction.
    "novograd": {
        "reg_inside_moment": True,
        "grad_averaging": False,
        "bias_correction": False,
        "init_zero": False,
    },
}


def refuse(named_parameters: list[tuple[str, nn.Parameter]]) -> None:
    """Raise UserError for the first parameter that Apex's kernels cannot update."""
    for name, p in named_parameters:
        if p.device.type != "cuda" or p.dtype != torch.float32:
            raise UserError(
                f"optim.impl=apex: {name} is {p.dtype} on {p.device}, Apex's kernels want fp32 on a GPU: use "
                "optim.impl=torch"
            )


def make(config: Optim, groups: Groups, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Build the fused optimizer `config.name` from the groups and settings of `hpc/optim/build.py`.

    Apex must be installed (`hpc.config.apex.refuse`).
    """
    spec = OPTIMIZERS[config.name]
    named = [name for group in groups for name, _ in group["params"]]
    plain = [group | {"params": [p for _, p in group["params"]]} for group in groups]
    try:
        kind = getattr(importlib.import_module("apex.optimizers"), spec.apex)
        optimizer = kind(plain, **settings, **EXTRA[config.name])
    except (ImportError, RuntimeError) as error:  # kernels that were built for another torch
        raise UserError(
            f"optim.impl=apex: NVIDIA Apex on {socket.gethostname()} does not load "
            f"({' '.join(str(error).split())}): build it again for torch {torch.__version__} "
            f"({BUILD}), or use optim.impl=torch"
        ) from None
    # Apex's own zero_grad takes no argument.
    optimizer.zero_grad = functools.partial(torch.optim.Optimizer.zero_grad, optimizer)
    if spec.moments:
        names = dict(zip((p for group in plain for p in group["params"]), named, strict=True))
        optimizer.register_step_pre_hook(functools.partial(_refuse_partial_step, names))
    return optimizer


def is_apex(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer).__module__.split(".")[0] == "apex"


def _refuse_partial_step(
    names: dict[nn.Parameter, str], optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
) -> None:
    """Refuse a step that leaves a parameter out: it would be counted as often as the others of its group."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                raise UserError(
                    f"optim.impl=apex counts steps for all parameters together, and {names[p]} has no "
                    "gradient in this step: use optim.impl=torch"
                )


def states(optimizer: torch.optim.Optimizer, spec: Optimizer) -> States:
    """Return the state of every parameter that was stepped, as the torch optimizer of that name keeps it."""
    by_parameter: States = {}
    for group in optimizer.param_groups:
        # NovoGrad keeps the roots of all second moments of a group: [those of fp16, those of fp32].
        norms = group["exp_avg_sq"][1] if spec.norms and "exp_avg_sq" in group else None
        for place, p in enumerate(group["params"]):
            if p not in optimizer.state or not optimizer.state[p]:
                continue
            state = dict(optimizer.state[p])
            if norms is not None:
                state["exp_avg_sq"] = norms[place].square()
            elif spec.counts:
                state["step"] = torch.tensor(float(group["step"]))
            by_parameter[p] = state
    return by_parameter


def load(
    optimizer: torch.optim.Optimizer, spec: Optimizer, loaded: States, names: dict[nn.Parameter, str]
) -> None:
    """Load a state: {} for a parameter that was never stepped, else as `states` returned it."""
    # All but SGD keep a count, or NovoGrad's norms, for a whole group.
    grouped = bool(spec.moments)
    for group in optimizer.param_groups:
        fresh = [p for p in group["params"] if not loaded.get(p)]
        if grouped and 0 < len(fresh) < len(group["params"]):
            raise UserError(
                f"the optimizer state has never stepped {names[fresh[0]]}, but others of its group: "
                "optim.impl=apex counts steps for all together: use optim.impl=torch"
            )
        group.pop("step", None)
        group.pop("exp_avg_sq", None)
        for p in group["params"]:
            optimizer.state[p] = {
                key: value for key, value in loaded.get(p, {}).items() if key in (*spec.moments, MOMENTUM)
            }
        if fresh or not grouped:
            continue
        if spec.norms:
            moments = torch.stack([loaded[p]["exp_avg_sq"] for p in group["params"]]).float()
            group["exp_avg_sq"] = [moments.new_zeros(0), moments.sqrt()]
            continue
        steps = {int(loaded[p]["step"]) for p in group["params"]}
        if len(steps) > 1:
            raise UserError(
                f"the optimizer state counts {min(steps)} steps of some parameters and {max(steps)} of "
                "others: optim.impl=apex counts them together: use optim.impl=torch"
            )
        group["step"] = steps.pop()
