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
from hpc.config.apex import BUILD, OPTIMIZERS
from hpc.config.schema import Optim

States = dict[nn.Parameter, dict[str, Tensor]]
Groups = list[dict[str, Any]]


def refuse(named_parameters: list[tuple[str, nn.Parameter]]) -> None:
    """Raise UserError for the first parameter that Apex's kernels cannot update."""
    for name, p in named_parameters:
        if p.device.type != "cuda" or p.dtype != torch.float32:
            raise UserError(
                f"optim.impl=apex: {name} is {p.dtype} on {p.device}, Apex's kernels want fp32 on a GPU: use "
                "optim.impl=torch"
            )


def make(config: Optim, groups: Groups) -> torch.optim.Optimizer:
    """Build the fused optimizer called `config.name` from the groups of `hpc/optim/build.py`.

    Apex must be there (`hpc.config.apex.refuse`).
    """
    betas = (config.betas[0], config.betas[1])
    adaptive: dict[str, Any] = {"lr": config.lr, "betas": betas, "eps": config.eps}
    settings: dict[str, dict[str, Any]] = {
        "sgd": {"lr": config.lr, "momentum": config.momentum, "nesterov": config.nesterov},
        "adam": adaptive | {"adam_w_mode": False},
        "adamw": adaptive | {"adam_w_mode": True},
        # Clipping is optim.clip's; and the paper scales every tensor, those without weight decay too.
        "lamb": adaptive | {"max_grad_norm": math.inf, "use_nvlamb": True},
        # Algorithm 1 of the paper: weight decay inside the moment, no averaging factor, no bias correction.
        "novograd": adaptive
        | {"reg_inside_moment": True, "grad_averaging": False, "bias_correction": False, "init_zero": False},
    }
    named = [name for group in groups for name, _ in group["params"]]
    plain = [group | {"params": [p for _, p in group["params"]]} for group in groups]
    try:
        kind = getattr(importlib.import_module("apex.optimizers"), OPTIMIZERS[config.name])
        optimizer = kind(plain, **settings[config.name])
    except (ImportError, RuntimeError) as error:  # kernels that were built for another torch
        raise UserError(
            f"optim.impl=apex: NVIDIA Apex on {socket.gethostname()} does not load "
            f"({' '.join(str(error).split())}): "
            f"build it again for torch {torch.__version__} ({BUILD}), or use optim.impl=torch"
        ) from None
    # Apex's own zero_grad takes no argument.
    optimizer.zero_grad = functools.partial(torch.optim.Optimizer.zero_grad, optimizer)
    if config.name != "sgd":
        names = dict(zip((p for group in plain for p in group["params"]), named, strict=True))
        optimizer.register_step_pre_hook(functools.partial(_refuse_partial_step, names))
    return optimizer


def is_apex(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer).__module__.split(".")[0] == "apex"


def _refuse_partial_step(
    names: dict[nn.Parameter, str], optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
) -> None:
    """A parameter that sits a step out would be taken for one that was stepped as often as its group."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                raise UserError(
                    f"optim.impl=apex counts steps for all parameters together, and {names[p]} has no "
                    f"gradient in "
                    "this step: use optim.impl=torch"
                )


def states(optimizer: torch.optim.Optimizer) -> States:
    """The state of every parameter that was stepped, as the torch optimizer of that name would keep it."""
    found: States = {}
    for group in optimizer.param_groups:
        norms = _norms(optimizer, group)
        for place, p in enumerate(group["params"]):
            if p not in optimizer.state or not optimizer.state[p]:
                continue
            state = dict(optimizer.state[p])
            if norms is not None:
                state["exp_avg_sq"] = norms[place].square()
            elif "exp_avg" in state:
                state["step"] = torch.tensor(float(group["step"]))
            found[p] = state
    return found


def _norms(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> Tensor | None:
    """NovoGrad keeps the roots of all second moments of a group: [those of fp16, those of fp32]."""
    return group["exp_avg_sq"][1] if "exp_avg_sq" in group else None


def load(optimizer: torch.optim.Optimizer, loaded: States, names: dict[nn.Parameter, str]) -> None:
    """Take over `loaded`: {} for a parameter that was never stepped, else as `states` gave it."""
    novograd = type(optimizer).__name__ == "FusedNovoGrad"
    counted = type(optimizer).__name__ != "FusedSGD"
    for group in optimizer.param_groups:
        fresh = [p for p in group["params"] if not loaded.get(p)]
        if counted and 0 < len(fresh) < len(group["params"]):
            raise UserError(
                f"the optimizer state has never stepped {names[fresh[0]]}, but others of its group: "
                "optim.impl=apex counts steps for all together: use optim.impl=torch"
            )
        group.pop("step", None)
        group.pop("exp_avg_sq", None)
        for p in group["params"]:
            optimizer.state[p] = {
                key: value
                for key, value in loaded.get(p, {}).items()
                if key in ("exp_avg", "momentum_buffer") or (key == "exp_avg_sq" and not novograd)
            }
        if fresh or not counted:
            continue
        if novograd:
            moments = torch.stack([loaded[p]["exp_avg_sq"] for p in group["params"]]).float()
            group["exp_avg_sq"] = [moments.new_zeros(0), moments.sqrt()]
            continue
        steps = {int(loaded[p]["step"]) for p in group["params"]}
        if len(steps) > 1:
            raise UserError(
                f"the optimizer state counts {min(steps)} steps of some parameters and {max(steps)} of "
                f"others: "
                "optim.impl=apex counts them together: use optim.impl=torch"
            )
        group["step"] = steps.pop()
