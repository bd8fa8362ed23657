"""A bench's job: two players at 32 pixels with batch norm, after DCGAN (Radford et al. 2016, arXiv 1511.06434)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc.task import Batch, Phase, Task

LATENT = 64
WIDTH = 32  # channels of the stage with the finest map


def generator() -> nn.Sequential:
    """Latents [n, LATENT, 1, 1] -> images [n, 3, 32, 32] in [-1, 1]."""
    layers: list[nn.Module] = []
    inputs = LATENT
    for outputs, stride, padding in ((4 * WIDTH, 1, 0), (2 * WIDTH, 2, 1), (WIDTH, 2, 1)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1), nn.Tanh())


def discriminator() -> nn.Sequential:
    """Images [n, 3, 32, 32] -> logits [n, 1]."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2)]
    for inputs in (WIDTH, 2 * WIDTH):
        layers += [nn.Conv2d(inputs, 2 * inputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(2 * inputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(4 * WIDTH, 1, 4), nn.Flatten())


def deceived(judge: nn.Module, made: Tensor) -> Tensor:
    """Return the loss of the generator."""
    return F.softplus(-judge(made)).mean()


def judged(judge: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Return the loss of the discriminator; batch norm sees real and made images apart, as the paper says."""
    return F.softplus(-judge(real)).mean() + F.softplus(judge(made)).mean()


class DCGAN(Task):
    def players(self) -> dict[str, nn.Module]:
        return {"G": generator(), "D": discriminator()}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("judge", "D"), Phase("make", "G")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        z = batch.latents(phase.name, LATENT)[:, :, None, None]
        if phase.name == "make":
            return deceived(nets["D"], nets["G"](z))
        with torch.no_grad():
            made = nets["G"](z)
        return judged(nets["D"], batch.images["image"], made)


def build(config: object) -> DCGAN:
    return DCGAN(config)
