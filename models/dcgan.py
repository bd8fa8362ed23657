"""DCGAN: images from latents by transposed convolutions, and their judge.

Radford, Metz & Chintala, Unsupervised representation learning with deep convolutional generative adversarial
networks (2016, figure 1 and section 3). Half of the figure's channels, as is common for images of 64 pixels
(512, 256, 128, 64). The judge returns logits: its sigmoid is in the loss.
"""

from torch import Tensor, nn

from models.resolution import level_of, positive

LATENTS = 100
WIDTH = 64
SLOPE = 0.2  # of leaky ReLU
STD = 0.02  # of initial weights


class Generator(nn.Module):
    """Latents [n, latents] -> images [n, 3, size, size] in [-1, 1].

    size: a power of two from 16 to 256; width: channels below the image, which double towards the latents
    """

    def __init__(self, size: int = 64, *, latents: int = LATENTS, width: int = WIDTH) -> None:
        super().__init__()
        doublings = level_of(size, key="size", least=16, most=256) - 3  # between the 4x4 map and the last
        channels = positive(width, "width") << doublings
        layers: list[nn.Module] = [nn.ConvTranspose2d(latents, channels, 4, 1, 0, bias=False)]
        for _ in range(doublings):
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)]
            channels //= 2
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.latents = latents
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """Images [n, 3, size, size] in [-1, 1] -> logits [n], high = real. No batch norm on the first layer.

    size: a power of two from 16 to 256; width: channels of the first layer, which each further one doubles
    """

    def __init__(self, size: int = 64, *, width: int = WIDTH) -> None:
        super().__init__()
        doublings = level_of(size, key="size", least=16, most=256) - 3
        channels = positive(width, "width")
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1, bias=False)]
        layers += [nn.LeakyReLU(SLOPE, inplace=True)]
        for _ in range(doublings):
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * channels)]
            layers += [nn.LeakyReLU(SLOPE, inplace=True)]
            channels *= 2
        layers += [nn.Conv2d(channels, 1, 4, 1, 0, bias=False)]
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1).squeeze(1)


def initialise(net: nn.Module, std: float = STD) -> None:
    """Draw weights from N(0, std), factors of batch norm from N(1, std); biases are 0 (section 4)."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
