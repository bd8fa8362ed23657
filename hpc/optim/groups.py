"""Parameter groups by name pattern: learning rate, weight decay, and what is frozen."""

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from data_shards.errors import UserError
from hpc.optim.state import Named


class GroupLike(Protocol):
    """What `hpc.task.Group` holds."""

    @property
    def lr(self) -> float: ...

    @property
    def decay(self) -> float | None: ...

    @property
    def frozen(self) -> bool: ...


Groups = Mapping[str, GroupLike]


def matching(name: str, patterns: Iterable[str]) -> str | None:
    """Return the first of the patterns that matches a name (None = none does)."""
    return next((pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)), None)


def freeze(module: nn.Module, groups: Groups, player: str) -> None:
    """Freeze what a frozen group matches: its parameters, and the statistics of its batch norm layers.

    Raises UserError for a pattern that matches nothing, and where nothing would be left to train.
    """
    weights = dict(module.named_parameters(remove_duplicate=False))  # a tied one by each of its names
    names = [*weights, *(name for name, _ in module.named_buffers(remove_duplicate=False))]
    own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    for pattern, group in groups.items():
        if not fnmatch.filter(names if group.frozen else own, pattern):
            raise UserError(
                f"the pattern {pattern} matches no parameter of player {player}: use names such as {names[0]}"
            )
    frozen = {name for name in names if (found := matching(name, groups)) and groups[found].frozen}
    for name in frozen & weights.keys():
        weights[name].requires_grad_(False)
    for name, layer in module.named_modules():
        parts = (*layer._parameters, *layer._buffers)
        if isinstance(layer, _BatchNorm) and any(f"{name}.{part}".lstrip(".") in frozen for part in parts):
            layer.eval()
    if frozen and not any(p.requires_grad for p in module.parameters()):
        raise UserError(f"everything of player {player} is frozen: leave a parameter to be trained")


def split(
    named_parameters: Named, groups: Groups, weight_decay: float, *, biases: bool = False
) -> list[dict[str, Any]]:
    """Return the groups of an optimizer, each with its factor of the rate as `scale`.

    Without a decay of their own one-dimensional parameters (norms, biases) have no weight decay.
    biases: whether those have groups of their own, marked by `bias`
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for pattern in (None, *groups):
        group = groups[pattern] if pattern is not None else None
        own = group.decay if group else None
        for kind in ("decayed", "undecayed", "biases"):
            decay = own if own is not None else weight_decay if kind == "decayed" else 0.0
            name = kind if pattern is None else f"{pattern} {kind}"
            scale = group.lr if group else 1.0
            found[pattern or "", kind] = {"name": name, "params": [], "weight_decay": decay, "scale": scale}
            found[pattern or "", kind] |= {"bias": True} if kind == "biases" else {}
    for name, p in named_parameters:
        is_bias = biases and name.rpartition(".")[2] == "bias"
        kind = "biases" if is_bias else "decayed" if p.ndim > 1 else "undecayed"
        found[matching(name, groups) or "", kind]["params"].append((name, p))
    return [group for group in found.values() if group["params"]]


def digest(module: nn.Module) -> str:
    """Hash the names and tensors of a module, so that another one is noticed."""
    hashed = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        raw = tensor.detach().cpu().contiguous()
        hashed.update(f"{name} {raw.dtype} {list(raw.shape)}\n".encode())
        hashed.update(raw.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
