"""ProGAN: a generator and a judge that grow from 4 pixels to 1024.

Karras et al., Progressive growing of GANs for improved quality, stability, and variation (2018, table 2).
Both are built whole. `level` says at which size they work (4 pixels at level 0, twice as many at each further
one) and `fade`, from 0 to 1, how far that level has come in. What is not reached gets no gradient.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.equalised import (
    GROUP,
    HE,
    LATENTS,
    MOST,
    SLOPE,
    WIDTH,
    Blur,
    Conv,
    Dense,
    FromLatents,
    add_deviation,
    double,
    faded,
    halve,
    pixel_norm,
)
from models.resolution import channels_at, level_of, positive


def top_level(resolution: int) -> int:
    """Return the level of images of `resolution` pixels; ValueError where there is none."""
    return level_of(resolution, key="resolution", least=4, most=MOST) - 2


class GeneratorBlock(nn.Module):
    """Two convolutions: [n, inputs, h, w] -> [n, outputs, 2h, 2w]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Conv(inputs, outputs, 3), Conv(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(F.leaky_relu(self.first(double(x)), SLOPE))
        return pixel_norm(F.leaky_relu(self.second(x), SLOPE))


class Generator(nn.Module):
    """Latents [n, latents] -> images [n, 3, s, s], s = 4 * 2^level, in [-1, 1] once trained, not bounded.

    resolution: of the last level, a power of two from 4 to 1024; width: channels up to 32 pixels
    """

    def __init__(self, resolution: int = MOST, *, width: int = WIDTH, latents: int = LATENTS) -> None:
        super().__init__()
        levels = top_level(resolution) + 1
        channels = [channels_at(level, positive(width, "width")) for level in range(levels)]
        self.latents = latents
        self.first, self.second = FromLatents(latents, channels[0]), Conv(channels[0], channels[0], 3)
        self.blocks = nn.ModuleList(
            GeneratorBlock(channels[level - 1], channels[level]) for level in range(1, levels)
        )
        self.colours = nn.ModuleList(Conv(channels[level], 3, 1, gain=1.0) for level in range(levels))

    def forward(self, z: Tensor, level: int, fade: float = 1.0) -> Tensor:
        x = pixel_norm(F.leaky_relu(self.first(pixel_norm(z)), SLOPE))
        x = pixel_norm(F.leaky_relu(self.second(x), SLOPE))
        below = x
        for block in self.blocks[:level]:
            below, x = x, block(x)
        image = self.colours[level](x)
        if level and fade < 1:
            image = faded(double(self.colours[level - 1](below)), image, fade)
        return image


class DiscriminatorBlock(nn.Module):
    """Two convolutions: [n, inputs, h, w] -> [n, outputs, h / 2, w / 2], blurred before if `blur`."""

    def __init__(self, inputs: int, outputs: int, *, blur: bool) -> None:
        super().__init__()
        self.first, self.second = Conv(inputs, inputs, 3), Conv(inputs, outputs, 3)
        self.blur = Blur() if blur else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.second(F.leaky_relu(self.first(x), SLOPE)), SLOPE)
        return halve(self.blur(x))


class Discriminator(nn.Module):
    """Images [n, 3, s, s], s = 4 * 2^level -> scores [n], high = real.

    resolution, width: as the generator's
    blur: whether maps are filtered before they are halved, as in StyleGAN
    group: how many consecutive images are compared with each other; n is a multiple of it
    """

    def __init__(
        self, resolution: int = MOST, *, width: int = WIDTH, blur: bool = False, group: int = GROUP
    ) -> None:
        super().__init__()
        levels = top_level(resolution) + 1
        channels = [channels_at(level, positive(width, "width")) for level in range(levels)]
        self.group = positive(group, "group")
        self.colours = nn.ModuleList(Conv(3, channels[level], 1) for level in range(levels))
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(channels[level], channels[level - 1], blur=blur) for level in range(1, levels)
        )
        self.conv = Conv(channels[0] + 1, channels[0], 3)
        self.dense = Dense(channels[0] * 16, channels[0], gain=HE)
        self.score = Dense(channels[0], 1, gain=1.0)

    def forward(self, image: Tensor, level: int, fade: float = 1.0) -> Tensor:
        x = F.leaky_relu(self.colours[level](image), SLOPE)
        for number in reversed(range(level)):
            x = self.blocks[number](x)
            if number == level - 1 and fade < 1:
                x = faded(F.leaky_relu(self.colours[number](halve(image)), SLOPE), x, fade)
        x = F.leaky_relu(self.conv(add_deviation(x, self.group)), SLOPE)
        x = F.leaky_relu(self.dense(x.flatten(1)), SLOPE)
        return self.score(x).squeeze(1)
