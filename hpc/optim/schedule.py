"""What an optimizer is given for an update, as a pure function of the clock: nothing to save or restore."""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Optim


class Settings(NamedTuple):
    """The learning rate, and the decays (`betas`, `momentum`, `alpha`) that the optimizer reads."""

    lr: float
    decays: dict[str, Any]
    biases: float  # their learning rate, another one during a warm-up with `warmup_bias`


def settings_at(config: Optim, clock: int, images: int, share: float = 1.0, factor: float = 1.0) -> Settings:
    """Return the settings of the update that starts at `clock`, in a run of `images`.

    share: of `lazy_share`, by which steps that come more often are made smaller
    factor: of the rate, as the stage has it
    """
    beta, *others = config.betas
    decays = {
        "betas": (_warmed(config, beta, clock) ** share, *(value**share for value in others)),
        "alpha": config.alpha**share,
        "momentum": _warmed(config, config.momentum, clock),
    }
    reads = OPTIMIZERS[config.name].reads
    lr = rate(config, clock, images)
    biases = lr
    if config.warmup_bias and clock < config.warmup:
        biases = config.warmup_bias + (config.lr - config.warmup_bias) * clock / config.warmup
    return Settings(
        lr * share * factor,
        {name: decays[name] for name in decays if name in reads},
        biases * share * factor,
    )


def lazy_share(every: Iterable[int]) -> float:
    """Return the share c of lr and decays for a player whose phases are due at every so many updates.

    A lazy phase with a step of its own is one step more in every k updates: with c = k / (k + 1), `lr * c`
    and `beta ** c` leave rate and memory as they were in images seen. Karras et al., "Analyzing and Improving
    the Image Quality of StyleGAN" (2020), appendix B. Without a phase of every update no step is one more.
    """
    counts = list(every)
    full = counts.count(1)
    more = sum((Fraction(1, count) for count in counts if count > 1), Fraction(0))
    return float(full / (full + more)) if full and more else 1.0


def _warmed(config: Optim, value: float, clock: int) -> float:
    """Return a momentum, which rises linearly from `warmup_momentum` to `value` during the warm-up."""
    if not config.warmup_momentum or clock >= config.warmup:
        return value
    return config.warmup_momentum + (value - config.warmup_momentum) * clock / config.warmup


def rate(config: Optim, clock: int, images: int) -> float:
    """Return the learning rate of the update that starts at `clock`, in a run of `images`.

    Rises linearly from 0 over `config.warmup` images and stays for the share `config.hold` of the run; cosine
    and linear then fall over the rest of the run from `lr` to `final * lr`; step multiplies by `gamma` at the
    shares of the whole run in `config.steps`.
    """
    if config.warmup and clock < config.warmup:
        return config.lr * clock / config.warmup
    start = config.warmup + round(config.hold * images)
    progress = min(1.0, max(0, clock - start) / max(1, images - start))
    if config.schedule == "cosine":
        # Loshchilov and Hutter, SGDR (2017), eq. 5, one period
        return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2)
    if config.schedule == "linear":
        return config.lr * (1 - (1 - config.final) * progress)
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(clock >= share * images for share in config.steps)
    assert config.schedule == "constant", config.schedule  # hpc/config/check.py refuses all others
    return config.lr
