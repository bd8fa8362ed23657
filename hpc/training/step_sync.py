"""The exchange of the ranks at every update, and the comparisons that find a rank out of step.

One exchange of a few numbers an update carries signals, the loss of each rank and the scalars that the task
reports, so that every rank takes the same decision at the same step. The numbers of an update leave the
device while the next one is computed: `hpc/train.py` exchanges them after that, or at once where something is
logged, evaluated or saved. Until then `hpc/optim/guard.py` keeps the network finite.
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
from hpc.config.players import key_of, optim_of
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.task import Batch, Phase
from hpc.training.player import Player

OWN = ("loss", "norm")  # scalars of every step; a task's own have other names
# Length of an exchange: fixed, so that ranks which report different scalars still meet, and are refused.
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

    def add_update(self, series: list[str], sync: "StepSync") -> None:
        """Add an exchanged update, whose values belong to the `series` ("<group>/<name>")."""
        self.digest += sync.digest
        for name, value in zip(series, sync.means, strict=True):
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
    digest: int  # of the update's samples, all ranks
    means: list[float]  # of the message's scalars over the ranks, in their order
    # By rank: the number of its first loss or norm that is not finite, from 1; 0 = all are.
    not_finite: list[int]
    failed: bool = False  # a rank's asynchronous save went wrong


class StepMessage:
    """What this rank tells the others of one update; clock, phases and sample ids stay here."""

    def __init__(self, clock: int) -> None:
        self.clock = clock  # where the update starts
        self.scalars: list[tuple[Phase, str]] = []  # `loss` and `norm` of each phase, then the task's own
        self._values: list[Tensor] = []
        self._copied: torch.cuda.Event | None = None  # when the values have reached the host

    def add(self, phase: Phase, loss: Tensor, norm: Tensor, reported: Mapping[str, Tensor]) -> None:
        """Add the scalars of a phase, which may still be in the making on the device."""
        for name, value in {"loss": loss, "norm": norm, **reported}.items():
            self.scalars.append((phase, name))
            self._values.append(value.detach().reshape(()))

    def names(self) -> list[str]:
        """Return `<phase>/<name>` of every scalar."""
        return [f"{phase.name}/{name}" for phase, name in self.scalars]

    def series(self) -> list[str]:
        """Return the name in `RunningMeans` of every scalar."""
        return [
            {"loss": f"loss/{phase.name}", "norm": f"norm/{phase.player}"}.get(name, f"loss/{name}")
            for phase, name in self.scalars
        ]

    def post(self, batch: Batch) -> "StepMessage":
        """Let the values of the update by `batch` travel to the host without waiting for them."""
        values = torch.stack(self._values).double() if self._values else torch.zeros(0, dtype=torch.float64)
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        self._host, self.ids, self.digest = values, batch.ids, digest(batch)
        return self

    def take(self) -> list[float]:
        """Wait for the values that `post` sent."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host.tolist()


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


def sync_step(message: StepMessage, reason: StopReason, comm: Comm, *, failed: bool = False) -> StepSync:
    """Exchange a posted message, stop reasons, and whether a save `failed`; wait for the update it tells of.

    Raises UserError on all ranks where they do not have the same scalars.
    """
    values = message.take()
    own = (number for number, (_, name) in enumerate(message.scalars) if name in OWN)
    not_finite = next((number + 1 for number in own if not math.isfinite(values[number])), 0)
    names = float(zlib.crc32("\n".join(message.names()).encode()))
    row = [reason + 4.0 * failed, float(message.digest), float(not_finite), names, *values]
    rows = collectives.gather_vector(row[:SLOTS] + [0.0] * (SLOTS - len(row)), comm)
    if any(other[3] != names for other in rows):
        _refuse_other_scalars(message, comm)
    if len(row) > SLOTS:  # on all ranks, whose scalars are the same by now
        more = collectives.gather_vector(row[SLOTS:], comm)
        rows = [first + rest for first, rest in zip(rows, more, strict=True)]
    flags, digests, places, _, *columns = zip(*(other[: len(row)] for other in rows), strict=True)
    return StepSync(
        stop=StopReason(max(int(flag) & 3 for flag in flags)),
        digest=int(sum(digests)),
        means=[sum(column) / comm.world for column in columns],
        not_finite=[int(place) for place in places],
        failed=any(int(flag) & 4 for flag in flags),
    )


def _refuse_other_scalars(message: StepMessage, comm: Comm) -> None:
    """Raise on all ranks, naming a scalar that only some of them reported, and these ranks."""
    names_by_rank = collectives.gather_objects(message.names(), comm)
    for full in sorted(set().union(*names_by_rank)):
        ranks = [str(rank) for rank, reported in enumerate(names_by_rank) if full in reported]
        if len(ranks) < comm.world:
            phase, _, name = full.partition("/")
            raise UserError(
                f"the scalar {name} was reported on {len(ranks)} of {comm.world} ranks (rank "
                f"{', '.join(ranks)}) only: let the task report it on every rank whenever the phase {phase} "
                "is due"
            )


def refuse_not_finite(sync: StepSync, message: StepMessage, config: Config, comm: Comm) -> None:
    """Raise on all ranks where a loss or the gradient is not finite; name rank, phase, clock and ids."""
    found = [(place, rank) for rank, place in enumerate(sync.not_finite) if place]
    if not found:
        return
    ids_by_rank = collectives.gather_objects(message.ids.flatten().tolist(), comm)
    place, rank = min(found)
    phase, name = message.scalars[place - 1]
    what = f"loss of rank {rank}" if name == "loss" else "gradient (summed over all ranks)"
    ids = ids_by_rank[rank] if name == "loss" else [sample for part in ids_by_rank for sample in part]
    lr, clip = (key_of(config, phase.player, f"optim.{key}") for key in ("lr", "clip"))
    raise UserError(
        f"the {what} is not finite: phase {phase.name}, clock {message.clock}, sample ids {ids}: lower "
        f"{lr}={optim_of(config, phase.player).lr}, set {clip}=1, or use precision=fp32"
    )


def compare_ranks(players: Mapping[str, Player], clock: int, comm: Comm) -> None:
    """Raise where a rank's parameters or buffers differ from rank 0's: name the first tensor and rank.

    Sharded parameters, of which each rank holds other rows, are left out.
    """
    checksums = {name: value for player in players.values() for name, value in player.checksums().items()}
    checksums_by_rank = collectives.gather_objects(list(checksums.values()), comm)
    for place, name in enumerate(checksums):
        for rank, sums in enumerate(checksums_by_rank):
            if sums[place] != checksums_by_rank[0][place]:
                raise UserError(
                    f"the ranks are out of step at clock {clock}: {name} of rank {rank} differs from rank "
                    "0's; resume from the last checkpoint with `rostro resume`, and report it"
                )
