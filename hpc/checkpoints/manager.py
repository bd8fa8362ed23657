"""What a run keeps of itself: when a checkpoint is worth saving, what goes in, and how it comes back.

The files are `hpc/checkpoints/store.py`; when the trainer asks is in `hpc/train.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.dropout import _DropoutNd

from data_shards.errors import UserError
from hpc.checkpoints import store, task_state
from hpc.checkpoints.async_writer import AsyncCheckpointWriter
from hpc.checkpoints.store import Checkpoint
from hpc.config.identity import identity, numbers
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.runs import restart
from hpc.runs.run_dir import RunDir
from hpc.task import Task
from hpc.training import fault_injection
from hpc.training.player import Player
from hpc.training.step_sync import RunningMeans


class CheckpointManager:
    """Saves and restores the players and the task of one run; every method is called by all ranks."""

    def __init__(
        self, run: RunDir, config: Config, task: Task, players: Mapping[str, Player], comm: Comm
    ) -> None:
        self.run, self.config, self.task, self.players, self.comm = run, config, task, players, comm
        self._saver = AsyncCheckpointWriter(self._commit, background=config.save.mode == "async")

    def find(self) -> Checkpoint | None:
        """The newest whole checkpoint, chosen by rank 0; None for a fresh run. UserError where all are lost."""
        found = store.latest(self.run.path, _say) if self.comm.main else None
        collectives.agree_or_raise(restart.gone(self.run) if self.comm.main and not found else "", self.comm)
        found = collectives.broadcast(found, self.comm)
        return store.read(found, verified=True) if found else None

    def restore(self, saved: Checkpoint) -> None:
        """Put the saved state into players and task."""
        check_checkpoint(saved, self.config, self.players)
        for player in self.players.values():
            player.load_state(saved.state_of(player.name))
        if not fault_injection.skip_restore("task"):
            self.task.load_state(saved.task)

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether `metrics` beat every checkpoint kept so far."""
        name, sense = self.task.metric
        if not math.isfinite(metrics.get(name, math.nan)) or not self.config.save.best:
            return False
        self._saver.wait()  # what is being written counts too
        old = store.scored(self.run.path, self.task.metric) if self.comm.main else []
        best = old[0][0] if old else None
        best = collectives.broadcast(best, self.comm)
        return best is None or (metrics[name] < best if sense == "min" else metrics[name] > best)

    def save(self, clock: int, updates: int, tick: RunningMeans, metrics: Mapping[str, float]) -> None:
        """Commit a checkpoint of this clock; all ranks wait for it, or with save.mode=async for its copy only.

        A failure, also that of the save before, ends all of them.
        """
        error = ""
        state = Checkpoint(clock, updates, task=self.task.state(), monitor=dataclasses.asdict(tick))
        task_state.split(state.task)  # on all ranks, so that what cannot be saved ends them with one message
        for player in self.players.values():  # on all ranks: ZeRO gathers the pieces
            state.put(player.name, player.state())
        if self.comm.main:
            state.meta = meta(self.config, self.task, self.comm) | {"metrics": dict(metrics)}
            error = self._saver.save(state)
        collectives.agree_or_raise(error, self.comm)

    def _commit(self, state: Checkpoint) -> None:
        store.save(self.run.path, state, guard=self.run.lock.check)
        restart.note_saved(self.run, state.clock)
        keep = self.config.save
        rules: dict[str, Any] = {"last": keep.last, "best": keep.best, "keep_every": keep.keep_every}
        store.prune(self.run.path, metric=self.task.metric, **rules)

    @property
    def measured(self) -> dict[str, float]:
        """What the ledger cannot see of saving: `writing`, the most seconds that a background save took."""
        return {"writing": round(self._saver.longest, 3)} if self._saver.longest else {}

    @property
    def failed(self) -> bool:
        """Whether a save of this rank failed since it was begun; `finish` then ends all ranks."""
        return bool(self._saver.error)

    def finish(self) -> None:
        """Wait for a save that is under way; its failure ends all ranks."""
        if self.config.save.mode == "async":
            collectives.agree_or_raise(self._saver.wait(), self.comm)

    def close(self) -> None:
        """Let a save that is under way come to its end, whatever became of the run."""
        self._saver.wait()


def _say(text: str) -> None:
    print(text, flush=True)


def meta(config: Config, job: Task, comm: Comm) -> dict[str, Any]:
    """What a checkpoint says of its run."""
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
    mine, theirs = numbers(config), dict(saved.meta.get("numbers", {}))
    if "micro_batch" in saved.meta and any(_has_dropout(player.module) for player in players.values()):
        mine["micro_batch"], theirs["micro_batch"] = config.micro_batch, saved.meta["micro_batch"]
    for key in sorted(mine.keys() | theirs.keys(), key=lambda key: (key != "task.name", key)):
        if theirs.get(key) != mine.get(key):
            raise UserError(
                f"the checkpoint of clock {saved.clock} was made with {key}={theirs.get(key)}, the run says "
                f"{key}={mine.get(key)}: set it back, or start a new run under another name"
            )


def _has_dropout(module: torch.nn.Module) -> bool:
    """Whether its masks, which are drawn for each micro batch, change the numbers."""
    return any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in module.modules())
