"""A variational autoencoder of faces: images to a normal distribution over latents, and back.

Kingma & Welling, Auto-encoding variational Bayes (2014). The layers are those of the face VAE of Foster,
Generative deep learning (2nd edition, 2023, chapter 3): at 32 pixels four convolutions of stride 2 with 128
filters and batch norm, 200 latents, a mirrored decoder. Each doubling of the size adds one layer on both
sides, so that the last map is 2x2 at any size.
"""

import torch
from torch import Tensor, nn

from models.resolution import level_of, positive

LATENTS = 200
FILTERS = 128
SLOPE = 0.3  # of leaky ReLU
LAST = 2  # side of the smallest map


class Encoder(nn.Module):
    """Images [n, 3, size, size] in [-1, 1] -> mean and log variance of their latents, [n, latents] each.

    size: a power of two from 16 to 256
    """

    def __init__(self, size: int = 32, *, latents: int = LATENTS, filters: int = FILTERS) -> None:
        super().__init__()
        count = level_of(size, key="size", least=16, most=256) - 1
        inputs, layers = 3, []
        for _ in range(count):
            layers += [nn.Conv2d(inputs, positive(filters, "filters"), 3, 2, 1), nn.BatchNorm2d(filters)]
            layers += [nn.LeakyReLU(SLOPE, inplace=True)]
            inputs = filters
        self.layers = nn.Sequential(*layers)
        self.mean = nn.Linear(filters * LAST**2, latents)
        self.log_variance = nn.Linear(filters * LAST**2, latents)
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(x).flatten(1)
        return self.mean(x), self.log_variance(x)


class Decoder(nn.Module):
    """Latents [n, latents] -> images [n, 3, size, size] in [-1, 1]; tanh(x / 2) is the sigmoid on [-1, 1].

    size: a power of two from 16 to 256
    """

    def __init__(self, size: int = 32, *, latents: int = LATENTS, filters: int = FILTERS) -> None:
        super().__init__()
        count = level_of(size, key="size", least=16, most=256) - 1
        self.latents, self.filters = latents, positive(filters, "filters")
        self.dense = nn.Sequential(
            nn.Linear(latents, filters * LAST**2),
            nn.BatchNorm1d(filters * LAST**2),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += [nn.ConvTranspose2d(filters, filters, 3, 2, 1, output_padding=1)]
            layers += [nn.BatchNorm2d(filters), nn.LeakyReLU(SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(filters, 3, 3, padding=1))
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z).view(-1, self.filters, LAST, LAST)
        return (self.layers(x) / 2).tanh()


class VAE(nn.Module):
    """An encoder and a decoder that train as one network."""

    def __init__(self, size: int = 32, *, latents: int = LATENTS, filters: int = FILTERS) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = Encoder(size, latents=latents, filters=filters)
        self.decoder = Decoder(size, latents=latents, filters=filters)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (reconstruction [n, 3, size, size] in [-1, 1], mean and log variance [n, latents]).

        noise: standard normal [n, latents], which picks latents from the distribution (None = its mean)
        """
        mean, log_variance = self.encoder(x)
        return self.decoder(sample(mean, log_variance, noise)), mean, log_variance


def sample(mean: Tensor, log_variance: Tensor, noise: Tensor | None) -> Tensor:
    """Return latents [n, d] as a differentiable function of their distribution (section 2.4)."""
    return mean if noise is None else mean + torch.exp(log_variance / 2) * noise


def initialise(net: nn.Module) -> None:
    """Draw uniform weights that keep the variance both ways (Glorot & Bengio 2010, eq. 16); biases are 0."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
