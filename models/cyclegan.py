"""CycleGAN: a residual network from one domain of images to another. Its judge is that of `pix2pix.py`.

Zhu et al., Unpaired image-to-image translation using cycle-consistent adversarial networks (2017, appendix
7.2), after Johnson et al. 2016: 9 residual blocks from 256 pixels on, 6 below. Instance norm without factors.
"""

import torch
from torch import Tensor, nn

from models.dcgan import initialise
from models.pix2pix import PatchDiscriminator, instance_norm
from models.resolution import positive

WIDTH = 64


class ReflectionPad(nn.Module):
    """[n, c, h, w] -> [n, c, h + 2 size, w + 2 size], mirrored at the border pixel, which is not repeated.

    As `nn.ReflectionPad2d`, whose backward pass on a GPU gives other sums each time.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        for side in (2, 3):
            length = x.shape[side]
            low = x.narrow(side, 1, self.size).flip(side)
            high = x.narrow(side, length - 1 - self.size, self.size).flip(side)
            x = torch.cat([low, x, high], side)
        return x


class Block(nn.Module):
    """x + body(x): [n, channels, h, w] -> the same, h and w at least 2. No activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReflectionPad(1),
            *conv_norm(channels, channels, 3),
            nn.ReLU(inplace=True),
            ReflectionPad(1),
            *conv_norm(channels, channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], h and w multiples of 4 from 16 on -> the same shape and range.

    blocks: residual blocks; width: channels of the first layer
    """

    def __init__(self, blocks: int = 9, *, width: int = WIDTH) -> None:
        super().__init__()
        channels = positive(width, "width")
        layers: list[nn.Module] = [ReflectionPad(3), *conv_norm(3, channels, 7), nn.ReLU(inplace=True)]
        for _ in range(2):
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), instance_norm(2 * channels)]
            layers += [nn.ReLU(inplace=True)]
            channels *= 2
        layers += [Block(channels) for _ in range(positive(blocks, "blocks"))]
        for _ in range(2):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1)]
            layers += [instance_norm(channels // 2), nn.ReLU(inplace=True)]
            channels //= 2
        self.layers = nn.Sequential(*layers, ReflectionPad(3), nn.Conv2d(channels, 3, 7), nn.Tanh())
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Networks(nn.ModuleDict):
    """Networks by name that one optimizer updates, such as both ways of a cycle: (x, name) -> its output."""

    def forward(self, x: Tensor, name: str) -> Tensor:
        return self[name](x)


def conv_norm(inputs: int, outputs: int, kernel: int) -> tuple[nn.Conv2d, nn.Module]:
    """Return a convolution without padding, and its instance norm."""
    return nn.Conv2d(inputs, outputs, kernel), instance_norm(outputs)


def build_discriminator(width: int = WIDTH) -> PatchDiscriminator:
    """Return the judge of one domain: images [n, 3, h, w] -> logits of patches."""
    return PatchDiscriminator(3, width=width, norm="instance")
