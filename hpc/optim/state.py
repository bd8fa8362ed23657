"""State as tensors by parameter name: of a module, and of an optimizer, whichever engine holds it.

Which state an optimizer keeps is stated in `hpc/config/optimizers.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.config import optimizers
from hpc.optim import apex as apex_optim

Named = list[tuple[str, nn.Parameter]]

UNSTEPPED = "unstepped"  # takes the place of the state of a parameter that no update has changed yet


def load_module(module: torch.nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Copy `tensors` into the parameters and buffers of `module`, by name; all of them, nothing else."""
    targets = module.state_dict()
    missing, extra = sorted(targets.keys() - tensors.keys()), sorted(tensors.keys() - targets.keys())
    if missing or extra:
        name = (missing or extra)[0]
        state = "lacks" if missing else "has an unknown tensor"
        raise UserError(f"{what} {state} {name}: it was saved by another network; use the run's own config")
    with torch.no_grad():
        for name, tensor in targets.items():
            if tensor.shape != tensors[name].shape:
                raise UserError(
                    f"{what}: {name} has shape {list(tensors[name].shape)}, the network {list(tensor.shape)}"
                )
            tensor.copy_(tensors[name])


def spec_of(optimizer: torch.optim.Optimizer) -> optimizers.Optimizer:
    """Return the table's entry for an optimizer of torch, of ours or of Apex."""
    return optimizers.of_class(type(optimizer).__name__)


def export_state(optimizer: torch.optim.Optimizer, named_parameters: Named) -> dict[str, Tensor]:
    """Return the state as `<parameter name>/<key>` -> tensor; the tensors are the live ones.

    A parameter that was never stepped (before the first update, or at a later stage of growth) is listed as
    `<parameter name>/unstepped`, so that a missing name is always an error.
    """
    exported: dict[str, Tensor] = {}
    spec, groups = spec_of(optimizer), _group_of(optimizer)
    states = apex_optim.states(optimizer, spec) if apex_optim.is_apex(optimizer) else optimizer.state
    for name, p in named_parameters:
        keys, state = _state_keys(spec, groups[p]), states.get(p, {})
        if keys and not state:
            exported[f"{name}/{UNSTEPPED}"] = torch.zeros((), dtype=torch.uint8)
        for key in sorted(keys & state.keys()):
            exported[f"{name}/{key}"] = state[key]
    return exported


def import_state(
    optimizer: torch.optim.Optimizer, named_parameters: Named, tensors: dict[str, Tensor]
) -> None:
    """Load what `export_state` returned, all of it and nothing else; UserError names the first misfit."""
    spec, groups = spec_of(optimizer), _group_of(optimizer)
    places: dict[str, tuple[str, str]] = {}
    for name, p in named_parameters:
        keys = _state_keys(spec, groups[p])
        if keys and f"{name}/{UNSTEPPED}" in tensors:
            keys = {UNSTEPPED}
        places |= {f"{name}/{key}": (name, key) for key in keys}
    missing, extra = sorted(places.keys() - tensors.keys()), sorted(tensors.keys() - places.keys())
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {extra[0]}"
        raise UserError(
            f"the optimizer state {what}: it was saved by another network or optimizer; "
            "use the run's own config"
        )
    by_name = dict(named_parameters)
    loaded: dict[nn.Parameter, dict[str, Tensor]] = {}
    for full, (name, key) in places.items():
        p = by_name[name]
        states = loaded.setdefault(p, {})
        if key != UNSTEPPED:
            like = p.detach().new_empty(()) if key in spec.norms else p.detach()
            states[key] = _copy_like(full, tensors[full], like, key, bool(groups[p].get("fused")))
    if apex_optim.is_apex(optimizer):
        apex_optim.load(optimizer, spec, loaded, {p: name for name, p in named_parameters})
        return
    for p, states in loaded.items():
        optimizer.state[p] = states


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Forget moments and step counts of all parameters: the next step is as the first one was."""
    optimizer.state.clear()
    for group in optimizer.param_groups:  # Apex keeps them here
        for key in ("step", "exp_avg_sq"):
            group.pop(key, None)


def _state_keys(spec: optimizers.Optimizer, group: dict[str, Any]) -> set[str]:
    return spec.state_keys(group.get("momentum", 0.0))


def _group_of(optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, dict[str, Any]]:
    return {p: group for group in optimizer.param_groups for p in group["params"]}


def _copy_like(full: str, saved: Tensor, like: Tensor, key: str, fused: bool) -> Tensor:
    """Copy `saved` to the device of `like`; moments get the memory layout of their parameter.

    full: `<parameter name>/<key>`, for the error
    fused: whether torch's fused kernel reads the step count, which then must be on the parameter's device
    """
    if key == "step":
        return saved.detach().clone().to(like.device if fused else "cpu")
    if saved.shape != like.shape:
        raise UserError(
            f"the optimizer state {full} has shape {list(saved.shape)}, its parameter wants "
            f"{list(like.shape)}: use the run's own config"
        )
    return torch.empty_like(like).copy_(saved)
