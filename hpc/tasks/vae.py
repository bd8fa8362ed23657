"""The variational autoencoder: images to latents and back, of which images are also made from nothing.

The network is `models/vae.py`, the loss that of Foster's face VAE (Generative deep learning, 2nd edition,
2023, chapter 3): a weighted squared difference beside the divergence of the latents from a standard normal.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, pixels_of
from data_shards.errors import UserError
from hpc.evaluation.generated import Generated
from hpc.evaluation.reconstruction import Reconstruction
from hpc.generator import Autoencoder
from hpc.losses import adversarial as losses
from hpc.metrics import paired as metrics
from hpc.plots.heat import enlarged
from hpc.task import Batch, Phase, Rendered, Task
from models import vae

NET = "VAE"  # its one player
SHOWN = 32  # images of a grid of the monitor
DRAWN = 256  # pixels: a smaller image is enlarged where it is drawn beside another one


class Vae(Task):
    """An encoder and a decoder, which one phase trains; what the encoder leaves open, noise decides."""

    metric = ("reconstruction/ssim", "max")
    takes = ("images", "latents")
    kept_images = ("generated",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        keys = config.task
        self.later = {
            "generated": lambda: Generated(
                features=keys["features"],
                samples=keys["samples"],
                side=min(64, config.data.size),
                block=config.eval.batch,
            )
        }
        self.evaluators = {"reconstruction": Reconstruction, **(self.later if keys["features"] else {})}

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        return {NET: vae.VAE(self.config.data.size, latents=keys["latents"], filters=keys["width"])}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("reconstruct", NET)]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        keys, images = self.config.task, batch.images[IMAGE]
        made, mean, log_variance = nets[NET](images, batch.latents(phase.name, keys["latents"]))
        squared, divergence = losses.reconstruction(made, images), losses.kl(mean, log_variance)
        self.report("squared_difference", squared.detach())
        self.report("divergence", divergence.detach())
        return keys["reconstruction"] * squared + divergence

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return the mean latent of each image and what is made of it; without images, those of positions."""
        net: Any = nets[NET]
        if not batch.images:
            return {IMAGE: net.decoder(batch.latents("shown", net.latents)).float()}
        latents = net.encoder(batch.images[IMAGE])[0]
        return {IMAGE: net.decoder(latents).float(), "latent": latents.float()}

    def generator(
        self, nets: Mapping[str, nn.Module], *, level: int | None = None, truncation: float | None = None
    ) -> "Coder":
        if level is not None:
            raise UserError(f"level={level}: a VAE does not grow: leave it out")
        if truncation not in (None, 1.0):
            raise UserError(f"truncation={truncation:g}: a VAE has no styles to truncate: leave it out")
        return Coder(nets[NET], self.config.data.size)

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return the latent, how close what is made of it is to the image, and both beside each other."""
        made = pixels_of(torch.from_numpy(prediction[IMAGE])[None])[0]
        pair = made[None], image[None]
        record = {"ssim": float(metrics.ssim(*pair)[0]), "l1": float(metrics.l1(*pair)[0])}
        drawn = np.hstack([enlarged(each, DRAWN) for each in (image, made)])
        return Rendered(record | {"latent": prediction["latent"]}, drawn)

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        given = batch.images[IMAGE][:SHOWN]
        made = self.predict(nets, batch[:SHOWN])[IMAGE]
        latents = Batch.of_positions(torch.arange(SHOWN), self.config.seed).prepare(batch.device)
        return {
            "reconstructed": torch.cat([given, made], 2),  # each above what is made of it
            "generated": self.predict(nets, latents)[IMAGE],
        }


class Coder(Autoencoder):
    """Both parts of a VAE as functions of images and of latents, without noise."""

    def __init__(self, net: nn.Module, side: int) -> None:
        super().__init__()
        self.net, self.side = net, side
        self.latents = int(net.latents)  # type: ignore[arg-type]

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.net.decoder(latents)  # type: ignore[operator]

    def encode(self, images: Tensor) -> Tensor:
        return self.net.encoder(images)[0]  # type: ignore[operator]


def build(config: Any) -> Vae:
    """Build the task; `hpc.task.build_task` calls it."""
    return Vae(config)
