"""The plan of CycleGAN: its two domains, keys and refusals. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from hpc.config.data_order import WHOLE
from hpc.config.rules import Rule
from hpc.config.schema import Config, Data
from hpc.evaluation.feature_words import check_training
from hpc.tasks.gan_plan import check_pixels
from models import costs

players = ("G", "D")
roles = dict.fromkeys(("train", "a", "b", "val", "eval"), ())
labels = {"domain": Field("class", "i4", names=("a", "b"), unknown=None)}  # of source=unpaired
engines = ("ddp", "flat", "deepspeed:1")
controls = ("optim", "ema", "task")
elastic = False  # a rounding error grows: other numbers of ranks see the same samples, and end elsewhere
runs = {"identity_run": "siamese"}

WAYS = {"ab": ("a", "b"), "ba": ("b", "a")}  # direction -> the domain of its input, and of its output
MULTIPLE, SMALLEST = 4, 24  # pixels: below it the judge's last norm would see a single one

KEYS = {
    "width": Rule("channels of the first layer of all networks", least=1),
    "blocks": Rule("residual blocks of a generator; the paper: 9 from 256 pixels on, 6 below", least=1),
    "cycle": Rule("weight of the L1 distance of an image that went there and back", least=0),
    "identity": Rule(
        "share of that weight for the L1 by which an image changes that is of the wanted domain", least=0
    ),
    "pool": Rule("earlier translations of each domain that its judge sees again; 0: none", least=0),
    "identity_run": Rule(
        "a run of task=siamese, by name or folder: its embedding of a translated face is to stay; empty: none"
    ),
    "identity_weight": Rule("of 1 less the cosine of the embeddings, with identity_run", least=0),
    "features": Rule("what judges translated images, as `rostro evaluate features=`; empty: nothing does"),
}


def held_out_domains(data: Data) -> dict[str, str]:
    """Return which held-out images are of which domain: a, b -> an expression over their labels.

    The sets beside `data.train` hold A alone where B has a folder of its own.
    """
    domains = {"a": data.a or WHOLE, "b": data.b or WHOLE}
    return {"a": domains["a"]} if data.train_b else domains


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of all four networks and the fp32 bytes that one image of each domain keeps.

    In `make` each way has three passes of generators, one without a weight of `identity`, and one of a judge.
    """
    keys, size = config.task, config.data.size
    generator = costs.cyclegan_generator(size, keys["width"], keys["blocks"])
    judge = costs.cyclegan_judge(size, keys["width"])
    passes = 3 if keys["cycle"] * keys["identity"] else 2
    kept = 2 * (passes * generator.kept + judge.kept)
    return 2 * (generator.parameters + judge.parameters), 4.0 * kept


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for sizes, images and features of no use, and held-out sets without the domains."""
    keys, data = config.task, config.data
    if data.halves:
        raise UserError(
            "data.halves=true: task=cyclegan learns from images without partners: leave it out, and pack the "
            "two domains by source=unpaired"
        )
    if data.size % MULTIPLE or data.size < SMALLEST:
        near = max(SMALLEST, -(-data.size // MULTIPLE) * MULTIPLE)
        raise UserError(
            f"data.size={data.size}: the networks take multiples of {MULTIPLE} pixels from {SMALLEST} on: "
            f"use data.size={near}"
        )
    if 0 < keys["pool"] < config.batch:
        raise UserError(
            f"batch={config.batch} is more than the task.pool={keys['pool']} images that are kept: use "
            f"batch={keys['pool']} or less, or task.pool={config.batch}"
        )
    if keys["features"] and data.train_b:
        raise UserError(
            f"task.features={keys['features']}: the held-out sets hold A alone where data.train_b is given: "
            "pack both domains into one set by source=unpaired, or leave task.features out"
        )
    check_training(config)
    for split, shards in sets.items():
        check_pixels(f"data.{split}={shards.folder}", data.size, shards, least=SMALLEST)
    for split in ("val", "eval"):
        if split in sets:
            _check_domains(sets[split], data)


def _check_domains(shards: Any, data: Data) -> None:
    from data_shards.sampling.rows import Rows  # numpy: not needed for a plan without data

    for domain, where in held_out_domains(data).items():
        Rows(shards, where, key=f"data.{domain}")
