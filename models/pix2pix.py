"""pix2pix: a U-Net from image to image, and a judge of patches of image pairs.

Isola et al., Image-to-image translation with conditional adversarial networks (2017, appendix 6.1). As in the
authors' published sizes, a convolution below batch norm has no bias, and the smallest map has no batch norm.

The only randomness of the paper's generator is dropout, in training and at test time. Its masks are made of
`noise` from outside, counted by the image's position, so that they do not depend on the rank. At test time
`own_statistics` normalises each image by its own statistics, as the paper's batches of one image do.
"""

import math
from itertools import pairwise
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dcgan import SLOPE, initialise
from models.resolution import level_of, positive

WIDTH = 64
MOST = 8  # a layer has at most so many times the channels of the first one
DROPPED = 3  # decoder blocks with dropout
RATE = 0.5


class Normalised(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, own_statistics: bool = False) -> Tensor:
        x = self.conv(x)
        if own_statistics:
            return F.instance_norm(x, weight=self.norm.weight, bias=self.norm.bias, eps=self.norm.eps)
        return self.norm(x)


class UNet(nn.Module):
    """Images [n, inputs, size, size] in [-1, 1] -> images [n, outputs, size, size] in [-1, 1].

    Maps are halved down to 1x1 and doubled again; each decoder block sees the encoder's map of its size too.

    size: a power of two from 32 to 512; width: channels of the first layer
    """

    def __init__(self, size: int = 256, *, inputs: int = 3, outputs: int = 3, width: int = WIDTH) -> None:
        super().__init__()
        depth = level_of(size, key="size", least=32, most=512)
        channels = [positive(width, "width") * min(2**level, MOST) for level in range(depth)]
        self.first = nn.Conv2d(inputs, width, 4, 2, 1, bias=False)
        self.down = nn.ModuleList(
            Normalised(nn.Conv2d(before, after, 4, 2, 1, bias=False), after)
            for before, after in pairwise(channels[:-1])
        )
        self.smallest = nn.Conv2d(channels[-2], channels[-1], 4, 2, 1, bias=False)
        up, below = [], channels[-1]
        for after in reversed(channels[:-1]):
            up.append(Normalised(nn.ConvTranspose2d(below, after, 4, 2, 1, bias=False), after))
            below = 2 * after  # with the encoder's map
        self.up = nn.ModuleList(up)
        self.last = nn.ConvTranspose2d(below, outputs, 4, 2, 1)
        self.multiple = size  # pixels, of both sides of an image of any other size
        # Channels of each block with dropout
        self.masked = [width * min(2 ** (depth - 2 - n), MOST) for n in range(DROPPED)]
        initialise(self)

    @property
    def noise_size(self) -> int:
        """How many numbers of noise an image of `size` pixels takes."""
        return sum(map(math.prod, self.masks(self.multiple, self.multiple)))

    def masks(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Return channels, height and width of each map with dropout, for an image of so many pixels."""
        rows, columns = height // self.multiple, width // self.multiple
        return [(channels, rows * (2 << n), columns * (2 << n)) for n, channels in enumerate(self.masked)]

    def forward(self, x: Tensor, noise: Tensor | None = None, *, own_statistics: bool = False) -> Tensor:
        """Translate images, whose sides may be any multiples of `size`.

        noise: standard normal [n, as many numbers as `masks` have], whose lower half is dropped (None = no
            dropout)
        own_statistics: whether each image is normalised by itself, whatever the mode of the network
        """
        shapes = self.masks(*x.shape[-2:])
        maps = [self.first(x)]
        for block in self.down:
            maps.append(block(F.leaky_relu(maps[-1], SLOPE), own_statistics))
        x = self.smallest(F.leaky_relu(maps[-1], SLOPE))
        masks = () if noise is None else noise.split([math.prod(shape) for shape in shapes], 1)
        for number, block in enumerate(self.up):
            x = block(F.relu(x), own_statistics)
            if number < len(masks):
                x = dropout(x, masks[number].unflatten(1, shapes[number]))
            x = torch.cat([x, maps.pop()], 1)
        return self.last(F.relu(x)).tanh()


def dropout(x: Tensor, noise: Tensor, rate: float = RATE) -> Tensor:
    """Zero `x` where the standard normal `noise` of its shape is in its lowest `rate`, and scale the rest."""
    keep = noise >= NormalDist().inv_cdf(rate)
    return torch.where(keep, x * (1 / (1 - rate)), torch.zeros((), dtype=x.dtype, device=x.device))


def instance_norm(channels: int) -> nn.Module:
    """Return the norm of each channel of each image by itself, without factors.

    `nn.InstanceNorm2d` does the same, but on a CPU its backward pass of a single image is wrong where the
    gradient comes in channels-last memory.
    """
    return nn.GroupNorm(channels, channels, affine=False)


class PatchDiscriminator(nn.Module):
    """Images [n, inputs, h, w] -> logits [n, 1, h / 8 - 2, w / 8 - 2]: one for each patch of 70x70 pixels.

    norm: "batch" as pix2pix, whose pairs are judged side by side (6 channels), or "instance" as CycleGAN
    """

    def __init__(self, inputs: int = 6, *, width: int = WIDTH, norm: str = "batch") -> None:
        super().__init__()
        if norm not in ("batch", "instance"):
            raise ValueError(f"norm={norm} is unknown: use batch or instance")
        kind = nn.BatchNorm2d if norm == "batch" else instance_norm
        biased = norm == "instance"
        channels = positive(width, "width")
        layers: list[nn.Module] = [nn.Conv2d(inputs, channels, 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        for stride in (2, 2, 1):
            layers += [nn.Conv2d(channels, 2 * channels, 4, stride, 1, bias=biased), kind(2 * channels)]
            layers += [nn.LeakyReLU(SLOPE, inplace=True)]
            channels *= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))
        initialise(self)

    def forward(self, *images: Tensor) -> Tensor:
        """Judge images, or several that belong together: their channels are joined."""
        return self.layers(images[0] if len(images) == 1 else torch.cat(images, 1))
