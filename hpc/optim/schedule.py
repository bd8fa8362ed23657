"""Learning rate as a pure function of the clock (images seen): nothing to save, nothing to restore."""

import math

from hpc.config.schema import Optim


def rate(config: Optim, clock: int, images: int) -> float:
    """Return the learning rate of the update that starts at `clock`, in a run of `images`.

    Rises linearly from 0 over `config.warmup` images; cosine and linear then fall over the rest of the run
    from `lr` to `final * lr`; step multiplies by `gamma` at the shares of the whole run in `config.steps`.
    """
    if config.warmup and clock < config.warmup:
        return config.lr * clock / config.warmup
    progress = min(1.0, (clock - config.warmup) / max(1, images - config.warmup))
    if config.schedule == "cosine":
        # Loshchilov and Hutter, SGDR (2017), eq. 5, one period
        return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2)
    if config.schedule == "linear":
        return config.lr * (1 - (1 - config.final) * progress)
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(clock >= share * images for share in config.steps)
    assert config.schedule == "constant", config.schedule  # hpc/config/check.py refuses all others
    return config.lr
