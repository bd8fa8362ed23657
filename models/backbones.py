"""The registry of backbones: a trunk by name, for every task that takes one. The names are in `names.py`."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import nn

from models.cnn import CNN
from models.googlenet import GoogLeNet
from models.mesonet import Meso4, MesoInception4
from models.names import fault
from models.resnet import ResNet
from models.small import Small
from models.vgg import DEEP, PLAIN, VGG

TRUNKS: dict[str, Callable[..., nn.Module]] = {
    "googlenet": GoogLeNet,
    "small": Small,
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "meso4": Meso4,
    "mesoinception4": MesoInception4,
    "vgg": partial(VGG, PLAIN),
    "vgg_deep": partial(VGG, DEEP),
    "cnn": CNN,
}


def build_trunk(name: str, width: int | None = None) -> tuple[nn.Module, int]:
    """Build a fresh trunk, images [n, 3, h, w] in [-1, 1] -> features [n, f]; return it and f.

    Its attribute `last_map` is the module whose output is its last feature map.

    width: channels of its first stage (None = its own). ValueError where name and width do not go together.
    """
    if reason := fault(name, width):
        raise ValueError(reason)
    options: dict[str, Any] = {} if width is None else {"width": width}
    trunk = TRUNKS[name](**options)
    return trunk, cast(int, trunk.features)
