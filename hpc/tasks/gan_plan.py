"""The plan of the generative adversarial jobs: growth, engines, keys and refusals. Imports no torch."""

import math
from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config.plan import Stage
from hpc.config.rules import Rule
from hpc.config.schema import Config
from hpc.config.types import shown
from hpc.evaluation.feature_words import check_training
from models import costs

# What the slopes of the judge keep for the second backward pass, relative to one look at images
SLOPES = {"dcgan": 2.0, "progan": 1.5, "stylegan": 1.6}
CORE = 2e10  # multiplications a second that a CPU core of 2.5 GHz with AVX-512 does in convolutions

players = ("G", "D")
roles = dict.fromkeys(("train", "val", "eval"), ())
controls = ("optim", "ema")
elastic = False  # a rounding error grows: other numbers of ranks see the same samples, and end elsewhere

BASE = 4  # pixels of level 0
LARGEST = {"dcgan": 256, "progan": 1024, "stylegan": 1024}  # pixels
SMALLEST = {"dcgan": 16, "progan": 4, "stylegan": 4}
GROWS = ("progan", "stylegan")
WGAN = "wgan"  # a loss, and the penalty that bounds its slopes

KEYS = {
    "network": Rule("which pair of networks", one_of=tuple(LARGEST)),
    "latents": Rule("numbers of a latent", least=1),
    "width": Rule("channels: dcgan below the image, progan and stylegan up to 32 pixels", least=1),
    "loss": Rule(
        "of the judge and the generator", one_of=("vanilla", "logistic", "saturating", "lsgan", "wgan")
    ),
    "penalty": Rule(
        "on slopes of the judge; r1: at real images; wgan: between real and generated ones; none",
        one_of=("none", "r1", "wgan"),
    ),
    "gamma": Rule("weight of the penalty", least=0),
    "lazy": Rule("r1: every so many updates", least=1),
    "drift": Rule("weight of the squared scores of real images; 0: none", least=0),
    "group": Rule("progan, stylegan: images whose differences the judge is shown", least=1),
    "mixing": Rule("stylegan: share of the images with styles of two latents", least=0, most=1),
    "noise": Rule("stylegan: whether its layers are given noise, beside the styles", younger=True),
    "truncation": Rule(
        "stylegan: of what `rostro generate` makes; 1: as trained, 0: the mean face", least=0, most=1
    ),
    "start": Rule("progan, stylegan: pixels of the first level; data.size is that of the last", least=4),
    "stable": Rule("images of each level, once it has come in", least=1),
    "fade": Rule("images over which a further level comes in", least=0),
    "batches": Rule("progan, stylegan: batch of each level from `start` on", least=1),
    "rates": Rule("progan, stylegan: factor of the learning rate at each level", above=0),
    "reset_moments": Rule("whether the optimizers forget their moments where a level begins"),
    "features": Rule("what judges generated images, as `rostro evaluate features=`; empty: nothing does"),
    "samples": Rule("how many generated images are judged", least=2),
}


def engines(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the engines: what grows has absent parameters, and a penalty differentiates twice."""
    plain = keys.get("network") == "dcgan" and keys.get("penalty") == "none"
    return ("flat", "ddp", "deepspeed:1") if plain else ("flat",)


def level_of(pixels: int) -> int:
    """Return the level of images of so many pixels: 0 at 4, one more at each doubling."""
    return int(math.log2(pixels / BASE))


def stages(config: Config) -> list[Stage]:
    """Return a stage for each level: it comes in over `fade` images, and then stays for `stable`.

    A stage is rounded up to whole batches; the last one reaches the end of the run. Raises UserError for
    sizes and tables of which no stages can be made.
    """
    keys, size = config.task, config.data.size
    _check_levels(config)
    if keys["network"] not in GROWS:
        return [Stage(0, config.batch, size)]
    levels = range(level_of(keys["start"]), level_of(size) + 1)
    grown, clock = [], 0
    for number, level in enumerate(levels):
        batch = keys["batches"][number]
        fade = keys["fade"] if number else 0
        grown.append(
            Stage(
                clock,
                batch,
                BASE << level,
                level=level,
                fade=fade,
                rate=keys["rates"][number],
                reset_moments=keys["reset_moments"] and number > 0,
            )
        )
        clock += -(-(fade + keys["stable"]) // batch) * batch
    _check_images(config, grown)
    return grown


def unit(config: Config) -> int:
    """Return how many images stay together: those that the judge compares with each other."""
    return config.task["group"] if config.task["network"] in GROWS else 1


def networks(config: Config) -> tuple[costs.Cost, costs.Cost]:
    """Return the costs of generator and judge of images of `data.size` pixels."""
    keys, size = config.task, config.data.size
    if keys["network"] == "dcgan":
        return costs.dcgan_generator(size, keys["width"], keys["latents"]), costs.dcgan_judge(
            size, keys["width"]
        )
    level, styled = level_of(size), keys["network"] == "stylegan"
    generator = costs.stylegan_generator if styled else costs.progan_generator
    judge = costs.growing_judge(level, keys["width"], blur=styled)
    return generator(level, keys["width"], keys["latents"]), judge


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of both networks and the fp32 bytes that one image keeps for backward.

    Of the phases the largest counts: an image is made and judged, or judged beside a made one.
    """
    made, judged = networks(config)
    looks = 2.0 + (SLOPES[config.task["network"]] if config.task["penalty"] == WGAN else 0.0)
    kept = max(made.kept + judged.kept, looks * judged.kept)
    return made.parameters + judged.parameters, 4.0 * kept


def core_rate(config: Config) -> float:
    """Return the images a second that one CPU core trains."""
    (made, judged), keys = networks(config), config.task
    # Forward, and twice that backward; half of it where gradients only pass through.
    work = 3 * made.work + 2 * judged.work + made.work + 6 * judged.work
    if keys["penalty"] != "none":
        work += 6 * judged.work / (keys["lazy"] if keys["penalty"] == "r1" else 1)
    return CORE / work


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for a loss without its penalty, features of no use, and sets of smaller images."""
    keys, size = config.task, config.data.size
    if keys["loss"] == WGAN and keys["penalty"] != WGAN:
        raise UserError(
            f"task.penalty={keys['penalty']}: task.loss=wgan needs a bound on slopes: use task.penalty=wgan"
        )
    check_training(config)
    for split, shards in sets.items():
        check_pixels(f"data.{split}={shards.folder}", size, shards, least=SMALLEST[keys["network"]])


def _check_levels(config: Config) -> None:
    """Raise UserError for sizes and tables of which no stages can be made."""
    keys, size, name = config.task, config.data.size, config.task["network"]
    least, most = SMALLEST[name], LARGEST[name]
    if not _is_power(size) or not least <= size <= most:
        raise UserError(
            f"data.size={size}: {name} makes images of a power of two from {least} to {most} pixels: use "
            f"data.size={min(max(1 << (size - 1).bit_length(), least), most)}"
        )
    if name not in GROWS:
        return
    start = keys["start"]
    if not _is_power(start) or start > size:
        raise UserError(
            f"task.start={start} is not a power of two from 4 to data.size={size}: use task.start=4"
        )
    levels = level_of(size) - level_of(start) + 1
    for key in ("batches", "rates"):
        if len(keys[key]) < levels:
            raise UserError(
                f"task.{key}={shown(keys[key])} has {len(keys[key])} of the {levels} levels from {start} to "
                f"{size} pixels: give one for each"
            )


def _check_images(config: Config, grown: list[Stage]) -> None:
    """Refuse a run that ends before its last level has come in."""
    last = grown[-1]
    least = last.clock + max(last.fade, last.batch)
    if least <= config.images:
        return
    each = config.images // (2 * len(grown))
    remedy = f"images={least:_} or more"
    if each >= max(stage.batch for stage in grown):
        remedy += f", or shorter levels, such as task.stable={each:_} task.fade={each:_}"
    raise UserError(
        f"images={config.images:_} ends before the level of {last.size} pixels is there, at {least:_}: use "
        f"{remedy}"
    )


def _is_power(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def check_pixels(place: str, size: int, shards: Any, *, least: int = BASE) -> None:
    """Refuse images that would only be enlarged: what is learnt is the blur. least: pixels of the task."""
    sides = [min(int(shards.width.min()), int(shards.height.min()))] if len(shards) else []
    if sides and sides[0] * 2 < size:
        smaller = 1 << (sides[0].bit_length() - 1)
        remedy = f"use data.size={smaller} or less, or " if smaller >= least else ""
        raise UserError(
            f"data.size={size}: {place} holds images of {sides[0]} pixels: {remedy}pack larger ones"
        )
