"""What the ranks tell each other at every step, and what they find out by comparing.

One exchange of a few numbers a step carries signals, the loss of each rank and what the task reports: every rank
then takes the same decision at the same step. Called by `hpc/train.py`.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data_shards import counter_rng
from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.task import Batch, Phase
from hpc.training.player import Player

OWN = ("loss", "norm")  # scalars of every step; a task's own have other names
SLOTS = 64  # numbers of an exchange, whatever a rank has to say: ranks that say different things still meet


class StepScalars:
    """What the task reports in a step, by name: of several micro batches their weighted mean."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._share = 1.0  # of the rank's batch that is reported now

    def clear(self) -> None:
        self._values = {}

    def set_loss_weight(self, share: float) -> None:
        """Let the following reports count for `share` of the rank's batch."""
        self._share = share

    def report(self, name: str, value: Tensor) -> None:
        """Add a scalar; UserError for the name of one of the trainer's own."""
        if name in OWN:
            raise UserError(f"report({name!r}): the trainer writes {name} itself: call it by another name")
        part = self._share * value.detach().float().reshape(())
        self._values[name] = self._values[name] + part if name in self._values else part

    def in_order(self) -> dict[str, Tensor]:
        return {name: self._values[name] for name in sorted(self._values)}


@dataclass
class RunningMeans:
    """What is summed between two log lines. Equal on all ranks, and part of a checkpoint."""

    sums: dict[str, list[float]] = field(default_factory=dict)  # "<group>/<name>": [sum, count]
    digest: int = 0  # of (position, sample id): the same at any world size

    def add(self, name: str, value: float) -> None:
        entry = self.sums.setdefault(name, [0.0, 0])
        entry[0] += value
        entry[1] += 1

    def means(self, group: str) -> dict[str, float]:
        """name -> mean of every series of the group."""
        found = {name.partition("/"): total / count for name, (total, count) in self.sums.items()}
        return {name: value for (head, _, name), value in found.items() if head == group}


@dataclass(frozen=True)
class StepSync:
    """The same on all ranks."""

    stop: int  # what some rank was asked to do, the highest of hpc/cluster/signals.py; 0: nothing
    digest: int  # of the step's samples, all ranks
    means: dict[str, float]  # over the ranks
    losses: list[float]  # by rank
    failed: bool = False  # a rank's asynchronous save went wrong


def digest(batch: Batch) -> int:
    """A number that two sets of (position, sample id) share only if they are equal (but for a chance of 1e-6).

    Each member of a slot counts. Sums of it are exact in float64, so ranks and ticks may add theirs in any order.
    """
    members = batch.ids.numpy().astype("u8").reshape(len(batch), -1).T
    total = 0
    for number, ids in enumerate(members):
        stream = counter_rng.key(0, "digest", *([number] if number else []))
        hashed = counter_rng.derive(stream, batch.positions.numpy()) ^ ids
        total += int((counter_rng.mix(hashed) >> np.uint64(44)).sum())
    return total


def sync_step(
    asked: int, scalars: Mapping[str, Tensor], batch: Batch, comm: Comm, *, failed: bool = False
) -> StepSync:
    """Share this rank's `scalars` (`loss`, `norm` and what the task reported), whether it was asked to stop
    (0, or a level of hpc/cluster/signals.py), and whether a save of it `failed`.

    Raises UserError on all ranks where they have not the same scalars.
    """
    mine = torch.stack([value.reshape(()).double() for value in scalars.values()]).tolist()
    names = float(zlib.crc32("\n".join(scalars).encode()))
    message = [asked + 4.0 * failed, float(digest(batch)), names, *mine]
    blank = [0.0] * (SLOTS - len(message))
    rows = collectives.gather_vector(message[:SLOTS] + blank, comm)
    if any(row[2] != names for row in rows):
        _refuse_other_scalars(list(scalars), comm)
    if len(message) > SLOTS:  # of equally many, by now
        more = collectives.gather_vector(message[SLOTS:], comm)
        rows = [row + rest for row, rest in zip(rows, more, strict=True)]
    flags, digests, _, *columns = zip(*(row[: len(message)] for row in rows), strict=True)
    means = {name: sum(column) / comm.world for name, column in zip(scalars, columns, strict=True)}
    stop = max(int(flag) & 3 for flag in flags)
    return StepSync(stop, int(sum(digests)), means, list(columns[0]), any(int(flag) & 4 for flag in flags))


def _refuse_other_scalars(mine: list[str], comm: Comm) -> None:
    """Raise on all ranks, naming a scalar that only some of them have, and those."""
    everyone = collectives.gather_objects(mine, comm)
    for name in sorted(set().union(*everyone)):
        having = [str(rank) for rank, theirs in enumerate(everyone) if name in theirs]
        if len(having) < comm.world:
            raise UserError(
                f"the scalar {name} was reported on {len(having)} of {comm.world} ranks (rank {', '.join(having)}) "
                "only: let the task report it on every rank whenever the phase is due"
            )


def refuse_not_finite(
    found: StepSync, phase: Phase, clock: int, batch: Batch, config: Config, comm: Comm
) -> None:
    """Raise on all ranks where a loss or the gradient is not finite; name rank, phase, clock and sample ids."""
    guilty = [rank for rank, loss in enumerate(found.losses) if not math.isfinite(loss)]
    if not guilty and math.isfinite(found.means["norm"]):
        return
    ids = collectives.gather_objects(batch.ids.tolist(), comm)
    what = f"loss of rank {guilty[0]}" if guilty else "gradient (summed over all ranks)"
    shown = ids[guilty[0]] if guilty else [sample for part in ids for sample in part]
    raise UserError(
        f"the {what} is not finite: phase {phase.name}, clock {clock}, sample ids {shown}: lower "
        f"optim.lr={config.optim.lr}, set optim.clip=1, or use precision=fp32"
    )


def compare_ranks(players: Mapping[str, Player], clock: int, comm: Comm) -> None:
    """Raise where a rank's parameters or buffers differ from rank 0's: name the first tensor and rank."""
    mine = [value for player in players.values() for value in player.checksums()]
    everyone = collectives.gather_objects(mine, comm)
    names = [name for player in players.values() for name in player.tensor_names()]
    for place, name in enumerate(names):
        for rank, sums in enumerate(everyone):
            if sums[place] != everyone[0][place]:
                raise UserError(
                    f"the ranks are out of step at clock {clock}: {name} of rank {rank} differs from rank 0's; "
                    "go on from the last checkpoint with `rostro resume`, and report it"
                )
