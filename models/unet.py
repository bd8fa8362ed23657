"""U-Net: a class for each pixel of an image.

Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation (2015, figure 1), with the
batch norm and the padded convolutions that are usual today, so that the output has the size of the input.
`widths` are the channels from the full size to the lowest; each level below has half the pixels a side.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 1024)
LIGHT = (16, 32, 64, 128, 256)
GROUPS = 8  # of group norm


class Twice(nn.Module):
    """Two 3x3 convolutions with norm and ReLU: [n, inputs, h, w] -> [n, outputs, h, w]."""

    def __init__(self, inputs: int, outputs: int, *, norm: str, middle: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in pairwise((inputs, middle or outputs, outputs)):
            layers += [nn.Conv2d(into, out, 3, padding=1, bias=False), norm_of(norm, out)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Up(nn.Module):
    """Twice the size, beside the map of that size from the way down."""

    def __init__(self, low: int, high: int, outputs: int, *, bilinear: bool, norm: str) -> None:
        super().__init__()
        self.enlarge = None if bilinear else nn.ConvTranspose2d(low, low // 2, 2, stride=2)
        inputs = high + (low if bilinear else low // 2)
        self.convs = Twice(inputs, outputs, norm=norm, middle=inputs // 2 if bilinear else 0)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        if self.enlarge is None:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        else:
            x = self.enlarge(x)
        return self.convs(torch.cat([beside, x], 1))


class UNet(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], sides multiples of `multiple` -> logits [n, classes, h, w].

    classes: 2 or more, the background among them
    widths: channels of each level, from the full size down
    bilinear: enlarge by interpolation (its lowest level then has half of the channels) instead of by a
        transposed convolution
    norm: batch | group (of 8 groups: independent of the batch)
    """

    def __init__(
        self, classes: int = 2, *, widths: Sequence[int] = WIDTHS, bilinear: bool = False, norm: str = "batch"
    ) -> None:
        super().__init__()
        if classes < 2 or len(widths) < 2 or min(widths) < 2:
            raise ValueError(
                f"classes={classes}, widths={[*widths]}: use 2 classes or more, and 2 widths or more"
            )
        if norm == "group" and any(width % (2 * GROUPS) for width in widths):
            raise ValueError(f"widths={[*widths]}: group norm needs multiples of {2 * GROUPS}")
        channels = [*widths[:-1], widths[-1] // 2] if bilinear else [*widths]
        self.multiple = 2 ** (len(channels) - 1)
        self.first = Twice(3, channels[0], norm=norm)
        self.down = nn.ModuleList(Twice(into, out, norm=norm) for into, out in pairwise(channels))
        ups, low = [], channels[-1]
        for number in range(len(channels) - 2, -1, -1):
            high = channels[number]
            outputs = high // 2 if bilinear and number else high
            ups.append(Up(low, high, outputs, bilinear=bilinear, norm=norm))
            low = outputs
        self.up = nn.ModuleList(ups)
        self.head = nn.Conv2d(low, classes, 1)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        if h % self.multiple or w % self.multiple:
            raise ValueError(f"images of {w} x {h} pixels: use sides that are multiples of {self.multiple}")
        maps = [self.first(images)]
        for convs in self.down:
            maps.append(convs(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for up in self.up:
            x = up(x, maps.pop())
        return self.head(x)


def norm_of(name: str, channels: int) -> nn.Module:
    """Return a norm layer by name. ValueError for a name that is not known."""
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(GROUPS, channels)
    raise ValueError(f"norm={name}: use batch or group")


def initialise(net: nn.Module) -> None:
    """Draw the weights so that ReLU keeps the variance (He et al. 2015; section 3 of the paper)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
