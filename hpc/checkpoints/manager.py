"""The checkpoints of a run: what goes into one, whether it is the best so far, and how it is restored.

The files are written by `hpc/checkpoints/store.py`; when the trainer saves is decided in `hpc/train.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.dropout import _DropoutNd

from data_shards.errors import UserError
from hpc.checkpoints import store, task_state
from hpc.checkpoints.async_writer import AsyncCheckpointWriter
from hpc.checkpoints.manifest import metric_of
from hpc.checkpoints.store import Checkpoint
from hpc.config.identity import UNHASHED, identity, numbers
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm, with_own_group
from hpc.runs import restart
from hpc.runs.run_dir import RunDir
from hpc.task import Task
from hpc.training import fault_injection
from hpc.training.helpers import check_helpers
from hpc.training.player import Player
from hpc.training.step_sync import RunningMeans


class CheckpointManager:
    """Saves and restores the players and the task of one run; every method is called by all ranks."""

    def __init__(
        self, run: RunDir, config: Config, task: Task, players: Mapping[str, Player], comm: Comm
    ) -> None:
        self.run, self.config, self.task, self.players, self.comm = run, config, task, players, comm
        # With sharded tensors all ranks write, and their threads meet beside the training.
        self._sharded = any(player.engine.rows for player in players.values())
        self._comm = with_own_group(comm, timeout=config.hang_timeout) if self._sharded else Comm()
        self.helpers: dict[str, str] = {}  # digests of the task's frozen helpers
        self._writer = AsyncCheckpointWriter(self._commit, background=config.save.mode == "async")

    def find(self) -> Checkpoint | None:
        """Read the newest whole checkpoint; None for a fresh run, UserError where all are lost."""
        path = store.latest(self.run.path, _print) if self.comm.main else None
        collectives.agree_or_raise(restart.gone(self.run) if self.comm.main and not path else "", self.comm)
        path = collectives.broadcast(path, self.comm)
        return store.read(path, verified=True, comm=self.comm) if path else None

    def restore(self, saved: Checkpoint) -> None:
        """Put the saved state into players and task."""
        check_checkpoint(saved, self.config, self.players)
        check_helpers(saved.meta.get("helpers", {}), self.helpers, saved.clock)
        for player in self.players.values():
            check_rows(saved, player)
            player.load_state(saved.state_of(player.name))
        if not fault_injection.skip_restore("task"):
            self.task.load_state(saved.task)

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Return whether `metrics` beat every checkpoint kept so far."""
        name, sense = self.task.metric
        value = metric_of(metrics, name)
        if value is None or not self.config.save.best:
            return False
        self._writer.wait()  # the checkpoint that is being written counts too
        scored = store.scored(self.run.path, self.task.metric) if self.comm.main else []
        best = scored[0][0] if scored else None
        best = collectives.broadcast(best, self.comm)
        return best is None or (value < best if sense == "min" else value > best)

    def save(self, clock: int, updates: int, means: RunningMeans, metrics: Mapping[str, float]) -> None:
        """Commit a checkpoint of this clock; with save.mode=async the ranks wait only for its copy.

        A failure of this save or of the one before ends all ranks.
        """
        error = ""
        state = Checkpoint(clock, updates, task=self.task.state(), monitor=dataclasses.asdict(means))
        task_state.split(state.task)  # on all ranks, so that an unfit state ends them with one message
        for player in self.players.values():  # on all ranks: ZeRO gathers the pieces
            state.put(player.name, player.state())
        if self.comm.main:
            state.meta = meta(self.config, self.task, self.comm)
            state.meta |= {"metrics": dict(metrics), "helpers": self.helpers}
        if self._sharded:
            collectives.agree_or_raise(self._writer.wait(), self.comm)  # no rank may begin alone
        if self.comm.main or self._sharded:
            error = self._writer.save(state if self.comm.main else state.only_pieces())
        collectives.agree_or_raise(error, self.comm)

    def _commit(self, state: Checkpoint) -> None:
        store.save(self.run.path, state, guard=self.run.ownership.check, comm=self._comm)
        if not self._comm.main:
            return
        restart.note_saved(self.run, state.clock)
        keep = self.config.save
        rules: dict[str, Any] = {"last": keep.last, "best": keep.best, "keep_every": keep.keep_every}
        store.prune(self.run.path, metric=self.task.metric, **rules)

    @property
    def measured(self) -> dict[str, float]:
        """The saving that the ledger cannot see: `writing`, the seconds of the longest background save."""
        return {"writing": round(self._writer.longest, 3)} if self._writer.longest else {}

    @property
    def failed(self) -> bool:
        """Whether a save of this rank has failed; `finish` then ends all ranks."""
        return bool(self._writer.error)

    def finish(self) -> None:
        """Wait for a save that is under way; its failure ends all ranks."""
        if self.config.save.mode == "async":
            collectives.agree_or_raise(self._writer.wait(), self.comm)

    def close(self) -> None:
        """Wait for a save that is under way, whatever became of the run."""
        self._writer.wait()


def _print(text: str) -> None:
    print(text, flush=True)


def meta(config: Config, job: Task, comm: Comm) -> dict[str, Any]:
    """Describe the run in its checkpoint's manifest."""
    return {
        "task": config.task["name"],
        "identity": identity(config),
        "numbers": numbers(config),
        "metric": list(job.metric),
        "world": comm.world,
        "micro_batch": config.micro_batch,
        "torch": torch.__version__,
    }


def check_checkpoint(saved: Checkpoint, config: Config, players: Mapping[str, Player]) -> None:
    """Refuse a checkpoint of another task, backend or config, naming the first such key."""
    current, stored = numbers(config), dict(saved.meta.get("numbers", {}))
    if "micro_batch" in saved.meta and any(_has_dropout(player.module) for player in players.values()):
        current["micro_batch"], stored["micro_batch"] = config.micro_batch, saved.meta["micro_batch"]
    stored = {key: current[key] for key in UNHASHED if key in current} | stored  # older ones do not state it
    for key in sorted(current.keys() | stored.keys(), key=lambda key: (key != "task.name", key)):
        if stored.get(key) != current.get(key):
            raise UserError(
                f"the checkpoint of clock {saved.clock} was made with {key}={stored.get(key)}, the run says "
                f"{key}={current.get(key)}: set it back, or start a new run under another name"
            )


def check_rows(saved: Checkpoint, player: Player) -> None:
    """Refuse, on all ranks alike, a checkpoint whose sharded tensors have other rows than the player's."""
    for name, rows in player.engine.rows.items():
        stored = saved.of.get(f"player-{player.name}/{name}", "none")
        if stored != rows.of:
            raise UserError(
                f"the checkpoint of clock {saved.clock} has {stored} rows of {player.name}.{name} in pieces, "
                f"the network {rows.of}: use the run's own config"
            )


def _has_dropout(module: torch.nn.Module) -> bool:
    """Return whether the module draws dropout masks, which depend on the micro batch."""
    return any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in module.modules())
