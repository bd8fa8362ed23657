"""The plan of the variational autoencoder: engines, keys, what it costs and refuses. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config.plan import Stage
from hpc.config.rules import Rule
from hpc.config.schema import Config
from hpc.config.sizes import micro_batches
from hpc.evaluation.feature_words import check_training
from hpc.tasks.gan_plan import check_pixels
from models.resolution import level_of

players = ("VAE",)
roles = dict.fromkeys(("train", "val", "eval"), ())
engines = ("ddp", "flat", "deepspeed:1")
controls = ("optim", "ema")

SMALLEST, LARGEST = 16, 256  # pixels
LAST = 4  # places of the smallest map, 2 x 2 at any size

KEYS = {
    "latents": Rule("numbers of a latent", least=1),
    "width": Rule("filters of each layer", least=1),
    "reconstruction": Rule(
        "weight of the mean squared difference of images, beside the divergence of latents", above=0
    ),
    "features": Rule("what judges generated images, as `rostro evaluate features=`; empty: nothing does"),
    "samples": Rule("how many generated images are judged", least=2),
}


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for sizes, batches and features of no use, and for sets of smaller images."""
    _layers(config)
    _check_statistics(config)
    check_training(config)
    for split, shards in sets.items():
        check_pixels(f"data.{split}={shards.folder}", config.data.size, shards, least=SMALLEST)


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of both networks and the fp32 bytes that one image keeps for backward."""
    layers, filters, latents = _layers(config), config.task["width"], config.task["latents"]
    corners = LAST * filters
    norm = 2 * filters  # of a layer: scale and shift
    kernel = 9 * filters**2 + filters
    encoder = (9 * 3 * filters + filters) + (layers - 1) * kernel + layers * norm
    encoder += 2 * (corners * latents + latents)
    decoder = (latents * corners + corners) + 2 * corners + layers * (kernel + norm)
    decoder += 9 * 3 * filters + 3
    return encoder + decoder, _kept(config.data.size, layers, filters)


def _check_statistics(config: Config) -> None:
    """Refuse batch norm of a single image: the decoder's first one has a number of each, and no map."""
    if config.norm_stats == "group" and config.norm_group < 2:
        raise UserError("norm_group=1: batch norm of one image makes all latents equal: use norm_group=8")
    fewest = min(micro_batches(config, Stage(0, config.batch, config.data.size)))
    if config.norm_stats == "sync":  # of all ranks together
        fewest *= config.procs * config.nodes
    if config.norm_stats in ("local", "sync") and fewest < 2:
        ranks = config.procs * config.nodes
        raise UserError(
            f"batch={config.batch} over {ranks} ranks with micro_batch={config.micro_batch} has a micro "
            "batch of one image, of which batch norm makes all latents equal: use "
            f"batch={8 * ranks} micro_batch=0"
        )


def _kept(size: int, layers: int, filters: int) -> float:
    """Return bytes: of each layer what its convolution and its batch norm have been given, and the images."""
    maps = sum((size >> layer) ** 2 for layer in range(1, layers + 1))  # pixels of the encoder's
    maps += sum((size >> layer) ** 2 for layer in range(layers + 1))  # and of the decoder's
    return 4.0 * (2 * filters * maps + 3 * 3 * size**2)


def _layers(config: Config) -> int:
    """Return the layers of stride 2 of each network. UserError where the size is not one of theirs."""
    try:
        return level_of(config.data.size, key="data.size", least=SMALLEST, most=LARGEST) - 1
    except ValueError as error:
        raise UserError(str(error)) from None
