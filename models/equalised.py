"""Layers of the networks that grow, ProGAN and StyleGAN: rates that are equal in all layers, norms, scaling.

Karras et al., Progressive growing of GANs (2018, section 4 and appendix A.1); Karras et al., A style-based
generator architecture (2019, section 2 and appendix C). Sums of squares are float32 under autocast.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of leaky ReLU
LATENTS = 512
WIDTH = 512
BASE = 4  # pixels of level 0; each level doubles them
MOST = 1024
HE = math.sqrt(2.0)  # gain of a layer before a leaky ReLU
GROUP = 4  # images over which the judge measures how they differ


class _Equalised(nn.Module):
    """Weights that begin as N(0, 1 / rate) and are scaled by He's constant in each pass, not at the start.

    Adam steps are equally long for all weights, so they are then as long relative to each layer's own scale.
    rate: factor of the effective learning rate of weights and biases
    """

    def __init__(self, shape: tuple[int, ...], fan_in: int, *, gain: float, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) / rate)
        self.rate = rate
        self.scale = gain / math.sqrt(fan_in) * rate


class Dense(_Equalised):
    """[n, inputs] -> [n, outputs]."""

    def __init__(self, inputs: int, outputs: int, *, gain: float = HE, rate: float = 1.0) -> None:
        super().__init__((outputs, inputs), inputs, gain=gain, rate=rate)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(_Equalised):
    """[n, inputs, h, w] -> [n, outputs, h, w], kernel x kernel with zeros around."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, gain: float = HE, bias: bool = True
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), inputs * kernel**2, gain=gain)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class FromLatents(_Equalised):
    """[n, latents] -> [n, outputs, 4, 4]: a 4x4 convolution over a latent that is a map of one pixel.

    Each number sees one weight of the 16, but the constant is that of the whole kernel (section 4.1).
    """

    def __init__(self, latents: int, outputs: int) -> None:
        super().__init__((outputs, latents, BASE, BASE), latents * BASE**2, gain=HE)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, z: Tensor) -> Tensor:
        x = z @ (self.weight * self.scale).transpose(0, 1).flatten(1)
        return x.unflatten(1, (-1, BASE, BASE)) + self.bias.view(-1, 1, 1)


def widened(x: Tensor) -> Tensor:
    """Return `x` in a type in which sums of squares are safe: float32, or float64 as it is."""
    return x if x.dtype == torch.float64 else x.float()


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Bring the vector of each pixel [n, c, ...] to a mean square of 1 (section 4.2 of ProGAN)."""
    wide = widened(x)
    return (wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + eps)).to(x.dtype)


def add_deviation(x: Tensor, group: int = GROUP, eps: float = 1e-8) -> Tensor:
    """Append one map of how the images of a group differ: [n, c, h, w] -> [n, c + 1, h, w].

    The map holds the mean, over channels and pixels, of the standard deviation over `group` consecutive
    images (section 3). Groups are those of the global batch, whatever ranks and micro batches it is cut into.
    ValueError where they are cut: n must be a multiple of `group`.
    """
    if len(x) % group:
        raise ValueError(
            f"{len(x)} images do not hold whole groups of {group}: let batch / ranks and micro_batch be "
            f"multiples of {group}"
        )
    wide = widened(x).view(-1, group, *x.shape[1:])
    spread = (wide - wide.mean(1, keepdim=True)).square().mean(1) + eps
    mean = spread.sqrt().mean((1, 2, 3), keepdim=True)  # of each group
    maps = mean.expand(-1, group, 1, 1).reshape(-1, 1, 1, 1)
    return torch.cat([x, maps.to(x.dtype).expand(-1, 1, *x.shape[2:])], 1)


def double(x: Tensor) -> Tensor:
    """Repeat each pixel: [n, c, h, w] -> [n, c, 2h, 2w]."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """Average blocks of 2x2 pixels: [n, c, h, w] -> [n, c, h / 2, w / 2]."""
    return F.avg_pool2d(x, 2)


class Blur(nn.Module):
    """Filter each channel by the binomial kernel (1, 2, 1) / 4 along both axes, with zeros around.

    Constants stay as they are (gain 1), but for the border. Section 2 of StyleGAN, after Zhang 2019.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", line[:, None] * line, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.to(x.dtype).expand(channels, 1, 3, 3), padding=1, groups=channels)


def faded(below: Tensor, above: Tensor, fade: float) -> Tensor:
    """Return `below` at 0, `above` at 1, and the line between them (figure 2 of ProGAN)."""
    return torch.lerp(below, above.to(below.dtype), fade)
