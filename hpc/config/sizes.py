"""The sizes that follow from a config: ranks, shares, micro batches, updates. Imports no torch."""

import math
from dataclasses import dataclass

from hpc.config.schema import Config


@dataclass(frozen=True)
class Sizes:
    """How a global batch is cut, and how often things happen in the run."""

    world: int
    share: int  # images of a rank in one update
    micro: tuple[int, ...]  # images of its micro batches; they add up to `share`
    updates: int
    evaluations: int
    saves: int


def sizes(config: Config) -> Sizes:
    """Return the sizes that follow from a config which `check` accepts."""
    world = config.procs * config.nodes
    share = config.batch // world
    most = min(config.micro_batch or share, share)
    full, rest = divmod(share, most)
    return Sizes(
        world=world,
        share=share,
        micro=(most,) * full + ((rest,) if rest else ()),
        updates=math.ceil(config.images / config.batch),
        evaluations=math.ceil(config.images / config.eval.every),
        saves=math.ceil(config.images / config.save.every),
    )
