"""The state of a run at a clock, in memory. How it is written and read: `store.py`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hpc.checkpoints import pieces, task_state
from hpc.training.player import PlayerState

Tensors = dict[str, Tensor]
PARTS = {"player": "players", "optim": "optim", "ema": "ema"}  # first word of a file's name -> field


@dataclass
class Checkpoint:
    """The state of a run at a clock. Read from disk, its tensors are on the CPU.

    Before it is written, this rank's rows of sharded tensors are in `pieces`; read, they are in their places.
    """

    clock: int
    updates: int
    players: dict[str, Tensors] = field(default_factory=dict)
    optim: dict[str, Tensors] = field(default_factory=dict)
    ema: dict[str, Tensors] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)  # nested tensors and plain values
    monitor: dict[str, Any] = field(default_factory=dict)  # sums since the last log line; plain values
    meta: dict[str, Any] = field(default_factory=dict)  # task, identity, world, metrics
    pieces: Tensors = field(default_factory=dict)  # by `pieces.key`
    of: dict[str, int] = field(default_factory=dict)  # read: `player-net/centres.weight` -> rows of all ranks

    def put(self, player: str, state: PlayerState) -> None:
        """Add the state of a player."""
        for kind, tensors in zip(PARTS, state[:3], strict=True):
            if tensors is not None:
                whole, own = pieces.divided(f"{kind}-{player}", tensors, state.rows)
                getattr(self, PARTS[kind])[player] = whole
                self.pieces |= own

    def state_of(self, player: str) -> PlayerState:
        """Return the state of a player."""
        return PlayerState(self.players[player], self.optim[player], self.ema.get(player))

    def tensors_of(self, owner: str) -> Tensors:
        """Return the tensors of a file, `player-net`, to be filled."""
        kind, _, player = owner.partition("-")
        found: Tensors = getattr(self, PARTS[kind]).setdefault(player, {})
        return found

    def only_pieces(self) -> "Checkpoint":
        """Return what a rank other than 0 writes."""
        return Checkpoint(self.clock, self.updates, pieces=self.pieces)

    def files(self) -> Iterator[tuple[str, Tensors | dict]]:
        """Yield (file name, content) of rank 0's files in the order of writing."""
        for kind, part in PARTS.items():
            for player, tensors in getattr(self, part).items():
                yield f"{kind}-{player}.safetensors", tensors
        tensors, plain = task_state.split(self.task)
        yield "task.safetensors", tensors
        yield "state.json", {"task": plain, "monitor": self.monitor}
