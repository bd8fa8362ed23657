"""StyleGAN: a mapping from latents to styles, and a generator that grows from 4 pixels to 1024 under them.

Karras, Laine & Aila, A style-based generator architecture for generative adversarial networks (2019, figure
1b and appendix C). Growth is that of `progan.py`, whose `Discriminator(blur=True)` is the judge. All that is
random comes from outside: noise, the second latents of style mixing and where they take over.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.equalised import (
    LATENTS,
    MOST,
    SLOPE,
    WIDTH,
    Blur,
    Conv,
    Dense,
    double,
    faded,
    pixel_norm,
    widened,
)
from models.progan import top_level
from models.resolution import channels_at, positive

MAPPING = 8  # layers
MAPPING_RATE = 0.01  # of learning, relative to the rest (appendix C)


class Mapping(nn.Module):
    """Latents [n, latents] of any length -> w [n, latents]."""

    def __init__(self, latents: int = LATENTS, layers: int = MAPPING) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Dense(latents, latents, rate=MAPPING_RATE) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        x = pixel_norm(z)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


class Styled(nn.Module):
    """What follows a convolution: noise, bias, leaky ReLU and the style, [n, c, h, w] -> the same."""

    def __init__(self, channels: int, latents: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))  # of the noise
        self.bias = nn.Parameter(torch.zeros(channels))
        self.style = Dense(latents, 2 * channels, gain=1.0)  # factors, then shifts
        nn.init.ones_(self.style.bias[:channels])

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Apply the style of w [n, latents] and `noise` [n, 1, h, w] (None = without)."""
        if noise is not None:
            x = x + (noise * self.strength[:, None, None]).to(x.dtype)
        x = x + self.bias[:, None, None].to(x.dtype)
        return adain(F.leaky_relu(x, SLOPE), *self.style(w).chunk(2, 1))


def adain(x: Tensor, factor: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """Give each map of `x` [n, c, h, w] the mean `shift` and the standard deviation |`factor`|, [n, c] each.

    Section 2, equation 1, after Huang & Belongie 2017.
    """
    wide = widened(x)
    centred = wide - wide.mean((2, 3), keepdim=True)
    normal = centred * torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + eps)
    return (normal * factor.to(wide.dtype)[:, :, None, None] + shift.to(wide.dtype)[:, :, None, None]).to(
        x.dtype
    )


class Block(nn.Module):
    """Two styled convolutions of one level: [n, inputs, h, w] -> [n, outputs, 2h, 2w]."""

    def __init__(self, inputs: int, outputs: int, latents: int) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, 3, bias=False)
        self.second = Conv(outputs, outputs, 3, bias=False)
        self.blur = Blur()
        self.styled = nn.ModuleList(Styled(outputs, latents) for _ in range(2))

    def forward(self, x: Tensor, w: Tensor, noise: list[Tensor | None]) -> Tensor:
        """Apply the block with the styles of w [n, 2, latents]."""
        # The blur is that of the doubled map: it commutes with the convolution, which leaves fewer channels.
        x = self.styled[0](self.blur(self.first(double(x))), w[:, 0], noise[0])
        return self.styled[1](self.second(x), w[:, 1], noise[1])


class Generator(nn.Module):
    """Latents [n, latents] -> images [n, 3, s, s], s = 4 * 2^level, in [-1, 1] once trained, not bounded.

    resolution: of the last level, a power of two from 4 to 1024; width: channels up to 32 pixels
    """

    mean_w: Tensor  # [latents], towards which truncation moves; zeros until `track`

    def __init__(self, resolution: int = MOST, *, width: int = WIDTH, latents: int = LATENTS) -> None:
        super().__init__()
        levels = top_level(resolution) + 1
        channels = [channels_at(level, positive(width, "width")) for level in range(levels)]
        self.latents = latents
        self.mapping = Mapping(latents)
        self.start = nn.Parameter(torch.ones(channels[0], 4, 4))
        self.conv = Conv(channels[0], channels[0], 3, bias=False)
        self.styled = nn.ModuleList(Styled(channels[0], latents) for _ in range(2))
        self.blocks = nn.ModuleList(
            Block(channels[level - 1], channels[level], latents) for level in range(1, levels)
        )
        self.colours = nn.ModuleList(Conv(channels[level], 3, 1, gain=1.0) for level in range(levels))
        self.register_buffer("mean_w", torch.zeros(latents))

    @staticmethod
    def num_layers(level: int) -> int:
        """How many layers have a style of their own."""
        return 2 * (level + 1)

    @staticmethod
    def noise_size(level: int) -> int:
        """How many numbers of noise an image takes; those of a level begin with those of the one below."""
        return sum(2 * (4 << below) ** 2 for below in range(level + 1))

    def forward(
        self,
        z: Tensor,
        level: int,
        fade: float = 1.0,
        *,
        noise: Tensor | None = None,
        other: Tensor | None = None,
        crossover: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Make images; the keywords are those of `styles` and `synthesise`."""
        w = self.styles(z, level, other=other, crossover=crossover, truncation=truncation, cutoff=cutoff)
        return self.synthesise(w, level, fade, noise=noise)

    def styles(
        self,
        z: Tensor,
        level: int,
        *,
        other: Tensor | None = None,
        crossover: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Return w for each layer, [n, num_layers(level), latents].

        other: second latents [n, latents], whose styles hold from layer `crossover` [n] on (see `crossovers`)
        truncation: how far w is from its mean, 1 = as far as it is (section 3.1 and appendix B)
        cutoff: only layers below it are truncated, 8 = up to 32 pixels (None = all)
        """
        layers = self.num_layers(level)
        w = self.mapping(z)[:, None].expand(-1, layers, -1)
        number = torch.arange(layers, device=z.device)[:, None]
        if other is not None:
            assert crossover is not None, "other latents need a crossover"
            w = torch.where(number < crossover[:, None, None], w, self.mapping(other)[:, None])
        if truncation != 1.0:
            short = torch.lerp(self.mean_w.to(w.dtype), w, truncation)
            w = short if cutoff is None else torch.where(number < cutoff, short, w)
        return w

    def synthesise(self, w: Tensor, level: int, fade: float = 1.0, *, noise: Tensor | None = None) -> Tensor:
        """Return images under the styles w [n, num_layers(level), latents].

        noise: standard normal [n, noise_size(level)] (None = without)
        """
        maps = self._noise_maps(noise, level)
        x = self.start.expand(w.shape[0], -1, -1, -1).to(w.dtype)
        x = self.styled[0](x, w[:, 0], maps[0])
        below = x = self.styled[1](self.conv(x), w[:, 1], maps[1])
        for number, block in enumerate(self.blocks[:level], 1):
            at = slice(2 * number, 2 * number + 2)
            below, x = x, block(x, w[:, at], maps[at])
        image = self.colours[level](x)
        if level and fade < 1:
            image = faded(double(self.colours[level - 1](below)), image, fade)
        return image

    def _noise_maps(self, noise: Tensor | None, level: int) -> list[Tensor | None]:
        sides = [4 << below for below in range(level + 1) for _ in range(2)]
        if noise is None:
            return [None] * len(sides)
        parts = noise.split([side**2 for side in sides], 1)
        return [part.view(-1, 1, side, side) for part, side in zip(parts, sides, strict=True)]

    @torch.no_grad()
    def track(self, z: Tensor, keep: float = 0.995) -> None:
        """Move the mean of w towards that of latents [k, latents], which are the same on all ranks.

        keep: weight of the old mean (0 = forget it, as for the averaged weights of a finished run)
        """
        self.mean_w.lerp_(self.mapping(z).mean(0).to(self.mean_w.dtype), 1 - keep)


def crossovers(noise: Tensor, layers: int, chance: float = 0.9) -> Tensor:
    """Return the layer from which on the second latents hold, int64 [n]: `layers` where none does.

    Section 3.1: for a share `chance` of the images, a layer drawn from 1 to layers - 1.

    noise: standard normal [n, 2]
    """
    share = torch.special.ndtr(noise.double())
    drawn = 1 + (share[:, 1] * (layers - 1)).long().clamp(max=layers - 2)
    return torch.where(share[:, 0] < chance, drawn, layers)
