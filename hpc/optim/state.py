"""State as tensors by parameter name: of a module, and of an optimizer, whichever engine holds it."""

from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.optim import apex as apex_optim


def load_module(module: torch.nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Copy `tensors` into the parameters and buffers of `module`, by name; all of them, nothing else."""
    wanted = module.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        name = (missing or extra)[0]
        state = "lacks" if missing else "has an unknown tensor"
        raise UserError(f"{what} {state} {name}: it was saved by another network; use the run's own config")
    with torch.no_grad():
        for name, tensor in wanted.items():
            if tensor.shape != tensors[name].shape:
                raise UserError(
                    f"{what}: {name} has shape {list(tensors[name].shape)}, the network {list(tensor.shape)}"
                )
            tensor.copy_(tensors[name])


Named = list[tuple[str, nn.Parameter]]


UNSTEPPED = "unstepped"  # stands in for the state of a parameter that no update has touched yet


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
            f"the optimizer state {full} has shape {list(saved.shape)}, its parameter wants "
            f"{list(like.shape)}: "
            "use the run's own config"
        )
    return torch.empty_like(like).copy_(saved)
