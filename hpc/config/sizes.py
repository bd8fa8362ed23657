"""The sizes that follow from a config: ranks, shares, micro batches, updates. Imports no torch."""

import math
from dataclasses import dataclass

from hpc.config.schema import Config


@dataclass(frozen=True)
class Sizes:
    """How a global batch is cut, and how often things happen in the run."""

    world: int
    share: int  # pictures of a rank in one update
    micro: tuple[int, ...]  # pictures of its micro batches; they add up to `share`
    updates: int
    evaluations: int
    saves: int


def sizes(config: Config) -> Sizes:
    """Derived sizes of a config that `check` accepts."""
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
