"""How large each backbone is, and how fast a CPU core trains it: for the plan of a run. Imports no torch.

A test compares sizes with the networks. Rates are rounded measurements, good to a factor of two: images of
`Backbone.size` pixels a second of one core's time (Xeon, 2.8 GHz): forward, backward and SGD in fp32, 8 or 16
images at a time.
"""

from dataclasses import dataclass

from models.names import BACKBONES


@dataclass(frozen=True)
class Counts:
    """Figures of a backbone without heads; w is its width, 1 where it takes none.

    features, parameters: c0 + c1 w + c2 w^2
    activations: fp32 bytes that an image of `Backbone.size` keeps for backward, for each w
    rate: images a second at the width of `Backbone.width`
    """

    features: tuple[int, int]
    parameters: tuple[int, int, int]
    activations: int
    rate: float


COUNTS: dict[str, Counts] = {
    "googlenet": Counts((1024, 0), (5_599_904, 0, 0), 12_260_000, 32),
    "small": Counts((128, 0), (97_680, 0, 0), 904_000, 560),
    "resnet18": Counts((0, 8), (0, 177, 2724), 340_000, 8.4),
    "resnet34": Counts((0, 8), (0, 293, 5190), 497_000, 3.8),
    "resnet50": Counts((0, 32), (0, 857, 5724), 1_337_000, 2.8),
    "meso4": Counts((16, 0), (27_960, 0, 0), 8_860_000, 60),
    "mesoinception4": Counts((16, 0), (28_598, 0, 0), 18_690_000, 21),
    "vgg": Counts((0, 16), (0, 101, 2551), 82_700, 29),
    "vgg_deep": Counts((0, 16), (0, 125, 3271), 89_700, 23),
    "cnn": Counts((256, 0), (256, 16_404, 234), 52_500, 260),
}
SLOWER = 1.7  # the time of an image grows with this power of the width, as measured from 16 to 64


def _width(name: str, width: int | None) -> int:
    return width or BACKBONES[name].width or 1


def features(name: str, width: int | None = None) -> int:
    """Return the number of features. width: of the first stage (None = the backbone's own)."""
    base, each = COUNTS[name].features
    return base + each * _width(name, width)


def parameters(name: str, width: int | None = None) -> int:
    """Return the number of parameters, without running statistics and heads."""
    base, linear, square = COUNTS[name].parameters
    w = _width(name, width)
    return base + linear * w + square * w * w


def activations(name: str, width: int | None, size: int) -> float:
    """Return the fp32 bytes that an image of `size` pixels keeps for backward."""
    return COUNTS[name].activations * _width(name, width) * (size / BACKBONES[name].size) ** 2


def core_rate(name: str, width: int | None, size: int) -> float:
    """Return the images of `size` pixels that one CPU core trains in a second."""
    wider = (_width(name, width) / (BACKBONES[name].width or 1)) ** SLOWER
    return COUNTS[name].rate / wider * (BACKBONES[name].size / size) ** 2
