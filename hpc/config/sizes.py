"""The sizes that follow from a config: ranks, shares, micro batches, updates. Imports no torch."""

import math
from dataclasses import dataclass

from hpc.config.plan import Stage, plan_of
from hpc.config.schema import Config
from hpc.config.stages import num_updates


@dataclass(frozen=True)
class Sizes:
    """How a global batch is cut, and how often things happen in the run."""

    world: int
    stages: tuple[Stage, ...]
    share: int  # images of a rank in one update of the first stage
    micro: tuple[int, ...]  # images of its micro batches; they add up to `share`
    updates: int
    evaluations: int
    saves: int


def sizes(config: Config) -> Sizes:
    """Return the sizes that follow from a config which `check` accepts."""
    world = config.procs * config.nodes
    stages = tuple(plan_of(config.task).stages(config))
    return Sizes(
        world=world,
        stages=stages,
        share=stages[0].batch // world,
        micro=micro_batches(config, stages[0]),
        updates=num_updates(stages, config.images),
        evaluations=math.ceil(config.images / config.eval.every),
        saves=math.ceil(config.images / config.save.every),
    )


def micro_batches(config: Config, stage: Stage) -> tuple[int, ...]:
    """Return the images of a rank's micro batches in an update of `stage`."""
    share = stage.batch // (config.procs * config.nodes)
    most = min(stage.micro_batch or config.micro_batch or share, share)
    full, rest = divmod(share, most)
    return (most,) * full + ((rest,) if rest else ())
