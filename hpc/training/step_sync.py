"""The exchange of the ranks at every step, and the comparisons that find a rank out of step.

One exchange of a few numbers a step carries signals, the loss of each rank and the scalars that the task
reports, so that every rank takes the same decision at the same step. Called by `hpc/train.py`.
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
from hpc.cluster.signals import StopReason
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.task import Batch, Phase
from hpc.training.player import Player

OWN = ("loss", "norm")  # scalars of every step; a task's own have other names
# Numbers of an exchange, always as many: ranks with different scalars still meet, and are refused.
SLOTS = 64


class StepScalars:
    """The scalars that the task reports in a step, by name: the weighted means over the micro batches."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._share = 1.0  # of the rank's batch that is reported now

    def clear(self) -> None:
        """Forget the scalars of the step before."""
        self._values = {}

    def set_loss_weight(self, share: float) -> None:
        """Let the following reports count for `share` of the rank's batch."""
        self._share = share

    def report(self, name: str, value: Tensor) -> None:
        """Add a scalar; UserError for the name of one of the trainer's own."""
        if name in OWN:
            raise UserError(f"report({name!r}): the trainer writes {name} itself: use another name")
        part = self._share * value.detach().float().reshape(())
        self._values[name] = self._values[name] + part if name in self._values else part

    def in_order(self) -> dict[str, Tensor]:
        """Return the scalars sorted by name, the same on all ranks."""
        return {name: self._values[name] for name in sorted(self._values)}


@dataclass
class RunningMeans:
    """The sums between two log lines. Equal on all ranks, and part of a checkpoint."""

    sums: dict[str, list[float]] = field(default_factory=dict)  # "<group>/<name>": [sum, count]
    digest: int = 0  # of (position, sample id): the same at any world size

    def add(self, name: str, value: float) -> None:
        """Add a value to the series `<group>/<name>`."""
        entry = self.sums.setdefault(name, [0.0, 0])
        entry[0] += value
        entry[1] += 1

    def of_group(self, group: str) -> dict[str, float]:
        """Return name -> mean of every series of the group."""
        means = {name.partition("/"): total / count for name, (total, count) in self.sums.items()}
        return {name: value for (head, _, name), value in means.items() if head == group}


@dataclass(frozen=True)
class StepSync:
    """The result of an exchange, the same on all ranks."""

    stop: StopReason  # the greatest of all ranks
    digest: int  # of the step's samples, all ranks
    means: dict[str, float]  # over the ranks
    losses: list[float]  # by rank
    failed: bool = False  # a rank's asynchronous save went wrong


def digest(batch: Batch) -> int:
    """Return a number that two sets of (position, sample id) share only if equal (or by a chance of 1e-6).

    Each member of a slot counts. Sums of digests are exact in float64, so ranks and steps may be added in any
    order.
    """
    members = batch.ids.numpy().astype("u8").reshape(len(batch), -1).T
    total = 0
    for number, ids in enumerate(members):
        stream = counter_rng.key(0, "digest", *([number] if number else []))
        hashed = counter_rng.derive(stream, batch.positions.numpy()) ^ ids
        total += int((counter_rng.mix(hashed) >> np.uint64(44)).sum())
    return total


def sync_step(
    reason: StopReason, scalars: Mapping[str, Tensor], batch: Batch, comm: Comm, *, failed: bool = False
) -> StepSync:
    """Exchange `scalars` (`loss`, `norm` and the task's own), stop reasons, and whether a save `failed`.

    Raises UserError on all ranks where they do not have the same scalars.
    """
    values = torch.stack([value.reshape(()).double() for value in scalars.values()]).tolist()
    names = float(zlib.crc32("\n".join(scalars).encode()))
    message = [reason + 4.0 * failed, float(digest(batch)), names, *values]
    blank = [0.0] * (SLOTS - len(message))
    rows = collectives.gather_vector(message[:SLOTS] + blank, comm)
    if any(row[2] != names for row in rows):
        _refuse_other_scalars(list(scalars), comm)
    if len(message) > SLOTS:  # on all ranks, whose scalars are the same by now
        more = collectives.gather_vector(message[SLOTS:], comm)
        rows = [row + rest for row, rest in zip(rows, more, strict=True)]
    flags, digests, _, *columns = zip(*(row[: len(message)] for row in rows), strict=True)
    means = {name: sum(column) / comm.world for name, column in zip(scalars, columns, strict=True)}
    stop = StopReason(max(int(flag) & 3 for flag in flags))
    return StepSync(stop, int(sum(digests)), means, list(columns[0]), any(int(flag) & 4 for flag in flags))


def _refuse_other_scalars(names: list[str], comm: Comm) -> None:
    """Raise on all ranks, naming a scalar that only some of them reported, and these ranks."""
    names_by_rank = collectives.gather_objects(names, comm)
    for name in sorted(set().union(*names_by_rank)):
        ranks = [str(rank) for rank, reported in enumerate(names_by_rank) if name in reported]
        if len(ranks) < comm.world:
            raise UserError(
                f"the scalar {name} was reported on {len(ranks)} of {comm.world} ranks (rank "
                f"{', '.join(ranks)}) only: let the task report it on every rank whenever the phase is due"
            )


def refuse_not_finite(
    sync: StepSync, phase: Phase, clock: int, batch: Batch, config: Config, comm: Comm
) -> None:
    """Raise on all ranks where a loss or the gradient is not finite; name rank, phase, clock and ids."""
    bad_ranks = [rank for rank, loss in enumerate(sync.losses) if not math.isfinite(loss)]
    if not bad_ranks and math.isfinite(sync.means["norm"]):
        return
    ids_by_rank = collectives.gather_objects(batch.ids.tolist(), comm)
    what = f"loss of rank {bad_ranks[0]}" if bad_ranks else "gradient (summed over all ranks)"
    ids = ids_by_rank[bad_ranks[0]] if bad_ranks else [sample for part in ids_by_rank for sample in part]
    raise UserError(
        f"the {what} is not finite: phase {phase.name}, clock {clock}, sample ids {ids}: lower "
        f"optim.lr={config.optim.lr}, set optim.clip=1, or use precision=fp32"
    )


def compare_ranks(players: Mapping[str, Player], clock: int, comm: Comm) -> None:
    """Raise where a rank's parameters or buffers differ from rank 0's: name the first tensor and rank."""
    checksums = [value for player in players.values() for value in player.checksums()]
    checksums_by_rank = collectives.gather_objects(checksums, comm)
    names = [name for player in players.values() for name in player.tensor_names()]
    for place, name in enumerate(names):
        for rank, sums in enumerate(checksums_by_rank):
            if sums[place] != checksums_by_rank[0][place]:
                raise UserError(
                    f"the ranks are out of step at clock {clock}: {name} of rank {rank} differs from rank "
                    "0's; resume from the last checkpoint with `rostro resume`, and report it"
                )
