"""The names of the backbones, and what can be said of each before torch is loaded. Imports no torch.

Plans and options read this table. `models/backbones.py` builds the networks; a test holds the two together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Backbone:
    """What a job may ask of a backbone, and what it costs: a test compares the counts with the network.

    size: side of the images that it is made for, pixels
    smallest: side of the smallest images that it takes, pixels
    width: channels of its first stage by default; all others follow (0 = the network is as published, and
    takes no width)
    parameters, features, activations: factors of 1, width and width squared. Activations are the fp32 bytes
    that an image of `size` keeps for the backward pass, within a tenth.
    rate: images of `size` that a CPU core of 2.5 GHz with AVX-512 trains in a second, at its own width, with
    their loading
    """

    size: int
    parameters: tuple[int, ...]
    features: tuple[int, ...]
    activations: tuple[int, ...]
    rate: float
    width: int = 0
    smallest: int = 16


class Cost(NamedTuple):
    """What a backbone costs at one width and size; see `Backbone`."""

    parameters: int
    features: int
    activations: float
    rate: float


BACKBONES: dict[str, Backbone] = {
    "googlenet": Backbone(112, (5_599_904,), (1024,), (12_250_000,), 20),
    "small": Backbone(112, (97_680,), (128,), (904_000,), 300),
    "resnet18": Backbone(112, (0, 177, 2_724), (0, 8), (150_000, 337_000), 8, width=64),
    "resnet34": Backbone(112, (0, 293, 5_190), (0, 8), (150_000, 494_000), 4.5, width=64),
    "resnet50": Backbone(112, (0, 857, 5_724), (0, 32), (150_000, 1_334_000), 3, width=64),
    "meso4": Backbone(256, (27_960,), (16,), (8_860_000,), 60),
    "mesoinception4": Backbone(256, (28_598,), (16,), (18_700_000,), 20),
    "vgg": Backbone(48, (0, 101, 2_551), (0, 16), (9_000, 82_500), 28, width=64),
    "vgg_deep": Backbone(48, (0, 125, 3_271), (0, 16), (9_000, 89_500), 21, width=64),
    "cnn": Backbone(64, (256, 16_404, 234), (256,), (17_400, 52_000), 220, width=32),
}
NAMES = tuple(BACKBONES)
WITH_WIDTH = tuple(name for name, backbone in BACKBONES.items() if backbone.width)


def cost(name: str, width: int | None = None, size: int | None = None) -> Cost:
    """Return what a backbone costs.

    width: of the first stage (None = the backbone's own); size: of the images, pixels (None = its own).
    """
    backbone = BACKBONES[name]
    channels, scale = width or backbone.width, ((size or backbone.size) / backbone.size) ** 2
    slower = (channels / backbone.width) ** 2 if backbone.width else 1.0
    return Cost(
        _sum(backbone.parameters, channels),
        _sum(backbone.features, channels),
        _sum(backbone.activations, channels) * scale,
        backbone.rate / (scale * slower),
    )


def _sum(factors: Sequence[int], width: int) -> int:
    return sum(factor * width**power for power, factor in enumerate(factors))


def fault(name: str, width: int | None = None, size: int | None = None) -> str:
    """Say in one line why a backbone cannot be built so, and what to use; empty where it can.

    width: of the first stage (None = the backbone's own); size: of the images, pixels.
    """
    if name not in BACKBONES:
        return f"backbone={name} is unknown: use {' or '.join(NAMES)}"
    backbone = BACKBONES[name]
    if width is not None and not backbone.width:
        return (
            f"width={width} does not go with backbone={name}, which takes none: leave it out, or use "
            f"{' or '.join(WITH_WIDTH)}"
        )
    if width is not None and width < 1:
        return f"width={width} is not positive: use 1 or more, for example width={backbone.width}"
    if size is not None and size < backbone.smallest:
        return f"size={size} is too small for backbone={name}: use {backbone.smallest} or more"
    return ""
