"""Two players that grow over three levels, each level with batches and a size of its own."""

from hpc.config.plan import Stage

roles = {"train": ()}
engines = ("flat",)  # its R1 differentiates twice
controls = ("optim", "ema")
players = ("G", "D")
elastic = False


def stages(config):
    batch = config.batch
    return [
        Stage(0, 2 * batch, 8),
        Stage(96, batch, 16, level=1, fade=48, reset_moments=True),
        Stage(192, batch, 32, level=2, fade=64, micro_batch=4, reset_moments=True),
    ]
