"""The registry of backbones: a trunk by name, for every task that takes one."""

from torch import nn

from models.googlenet import GoogLeNet
from models.small import Small

TRUNKS: dict[str, type[GoogLeNet] | type[Small]] = {"googlenet": GoogLeNet, "small": Small}


def build_trunk(name: str) -> tuple[nn.Module, int]:
    """A fresh trunk and the number of its features. ValueError where the name is unknown."""
    if name not in TRUNKS:
        raise ValueError(f"task.trunk={name} is unknown: use {' or '.join(TRUNKS)}")
    trunk = TRUNKS[name]()
    return trunk, trunk.features
