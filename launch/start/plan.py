"""A run as it was resolved from the typed words: what submit, the dry run and creation share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from hpc.config.plan import Plan, plan_of
from hpc.config.schema import Config
from hpc.config.sizes import Sizes, sizes

if TYPE_CHECKING:
    from data_shards.shard_format.shard_set import ShardSet  # imports numpy

Sets = Mapping[str, "ShardSet"]


@dataclass(frozen=True)
class RunPlan:
    """A checked config and what was read to check it.

    words: as typed
    task: the value of `task=`
    sets: the opened sets that are read by index: train, val, eval
    people: `sets`, and the packed folder that a stream reads as train
    warning: why the data cannot be used (empty = they can); only a dry run resolves with one
    """

    config: Config
    words: tuple[str, ...] = ()
    task: str = ""
    sets: Sets = field(default_factory=dict)
    people: Sets = field(default_factory=dict)
    warning: str = ""

    @cached_property
    def stated(self) -> Plan:
        """What the task states of itself."""
        return plan_of(self.config.task)

    @cached_property
    def sizes(self) -> Sizes:
        """Ranks, shares, micro batches and updates."""
        return sizes(self.config)
