"""The names of the backbones, and what can be said of each before torch is loaded. Imports no torch.

Plans and options read this table. `models/backbones.py` builds the networks; a test holds the two together.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backbone:
    """What a job may ask of a backbone.

    size: side of the images that it is made for, pixels
    smallest: side of the smallest images that it takes, pixels
    width: channels of its first stage by default; all others follow (0 = the network is as published, and
    takes no width)
    """

    size: int
    smallest: int
    width: int = 0


BACKBONES: dict[str, Backbone] = {
    "googlenet": Backbone(size=112, smallest=16),
    "small": Backbone(size=112, smallest=16),
    "resnet18": Backbone(size=112, smallest=16, width=64),
    "resnet34": Backbone(size=112, smallest=16, width=64),
    "resnet50": Backbone(size=112, smallest=16, width=64),
    "meso4": Backbone(size=256, smallest=16),
    "mesoinception4": Backbone(size=256, smallest=16),
    "vgg": Backbone(size=48, smallest=16, width=64),
    "vgg_deep": Backbone(size=48, smallest=16, width=64),
    "cnn": Backbone(size=64, smallest=16, width=32),
}
NAMES = tuple(BACKBONES)
WITH_WIDTH = tuple(name for name, backbone in BACKBONES.items() if backbone.width)


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
