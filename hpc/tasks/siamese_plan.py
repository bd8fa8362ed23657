"""The refusals of the siamese job, and the sizes that `rostro submit` plans with. Imports no torch."""

import itertools
from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config.rules import Rule
from hpc.config.schema import Config
from models import names

KEYS = {
    "trunk": Rule("network below the embedding", one_of=("googlenet", "small")),
    "embedding": Rule("numbers of an embedding", least=1),
    "loss": Rule(
        "what is minimised over all pairs of a batch", one_of=("contrastive", "triplet", "supcon", "bce")
    ),
    "margin": Rule("contrastive, triplet: on the distance of unit embeddings, which is at most 2", above=0),
    "temperature": Rule("supcon: divides the cosines", above=0),
    "mirror": Rule("judge by the sum of the embeddings of an image and its mirror image"),
}

SMALLEST = 16  # pixels; below it pooling leaves the GoogLeNet nothing

roles = {"train": ("identity",), "val": ("identity",), "eval": ("identity",)}
controls = ("optim", "ema", "task")


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for keys that cannot make a siamese run, and for sets without pairs."""
    keys = config.task
    if keys["loss"] in ("contrastive", "triplet") and keys["margin"] >= 2:
        raise UserError(
            f"task.margin={keys['margin']} is never reached, unit embeddings are at most 2 apart: "
            "use a margin below 2, for example task.margin=1.0"
        )
    if config.data.order != "groups":
        raise UserError(
            f"data.order={config.data.order} gives hardly a genuine pair in a batch: use data.order=groups"
        )
    if config.data.group < 2:
        raise UserError(f"data.group={config.data.group} gives no genuine pair: use data.group=2 or more")
    if config.data.size < SMALLEST:
        raise UserError(
            f"data.size={config.data.size} is too small for the trunk: use data.size={SMALLEST} or more"
        )
    if config.data.fit != "cover":
        raise UserError(
            f"data.fit={config.data.fit} is not what `rostro verify` and exports show, the centre square: "
            "use data.fit=cover"
        )
    if config.batch < 2 * config.data.group:
        raise UserError(
            f"batch={config.batch} holds fewer than two identities of data.group={config.data.group} "
            f"images: use batch={2 * config.data.group} or more"
        )
    _check_sets(sets)


def _check_sets(sets: Mapping[str, Any]) -> None:
    """Raise UserError for a set ("train", "eval") in which no two images can be compared."""
    for split, shards in sets.items():
        images = [end - start for start, end in itertools.pairwise(shards.identity_start.tolist())]
        most = max(images, default=0)
        if len(images) < 2 or most < 2:
            raise UserError(
                f"data.{split}={shards.folder} holds {len(images)} identities with at most {most} images "
                "each: it takes two identities, and one with two images; pack a set that has them"
            )


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of all networks and the fp32 bytes that one image keeps for backward."""
    keys, trunk = config.task, names.cost(config.task["trunk"], size=config.data.size)
    head = keys["embedding"] + 1 if keys["loss"] == "bce" else 0
    return trunk.parameters + (trunk.features + 1) * keys["embedding"] + head, trunk.activations


def core_rate(config: Config) -> float:
    """Return the images a second that one CPU core trains."""
    return names.cost(config.task["trunk"], size=config.data.size).rate
