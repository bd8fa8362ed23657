"""This rank's passes of an update: which gradients they leave, under which seed, in which micro batches.

One phase at a time: the passes themselves are in `hpc/training/accumulation.py`; the order of phases, the
reduction and the step are in `hpc/train.py`.
"""

import contextlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from data_shards import counter_rng
from data_shards.loading.loader import Loader
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.task import Batch, Phase, Stage, Task
from hpc.training import device_batch, seeding
from hpc.training.accumulation import BackwardPass, blocks_of
from hpc.training.player import Player
from hpc.training.step_sync import StepScalars


class Passes:
    """Leaves the gradients of one phase at a time in its player."""

    def __init__(
        self,
        config: Config,
        task: Task,
        players: Mapping[str, Player],
        helpers: Mapping[str, nn.Module],
        scalars: StepScalars,
        comm: Comm,
    ) -> None:
        self.config, self.task, self.players, self.helpers = config, task, players, helpers
        self.scalars, self.comm = scalars, comm

    def backward(self, index: int, phase: Phase, batch: Batch, clock: int, stage: Stage) -> Tensor:
        """Leave the gradients of `phase` in its player and nowhere else; return this rank's loss.

        index: the place of the phase among those of the update, which starts at `clock`
        """
        for name, player in self.players.items():
            if len(self.players) > 1:
                player.receive_gradients(name == phase.player)
        self.players[phase.player].optimizer.zero_grad(set_to_none=True)
        self.scalars.clear()
        stream = (self.config.seed, "step", clock, self.comm.rank, index)
        backward_pass = BackwardPass(
            self.task,
            phase,
            {name: player.engine for name, player in self.players.items()},
            clock=clock,
            seed=lambda micro: seeding.seed_torch(int(counter_rng.key(*stream, micro))),
            autocast=self._autocast,
            set_loss_weight=self.scalars.set_loss_weight,
            helpers=self.helpers,
        )
        micro = stage.micro_batch or self.config.micro_batch
        return backward_pass.backward(batch, blocks_of(len(batch), micro))

    def _autocast(self) -> contextlib.AbstractContextManager:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.comm.device.type, dtype=torch.bfloat16, enabled=enabled)

    def warm_up(self, batch: Batch, stage: Stage, load: Callable[[Stage], Loader]) -> None:
        """Run the run's first update twice, since DDP lays out its buckets after the first passes of all.

        A resumed run too takes that of clock 0: phases differ by the clock, the layout is the order of sums.
        load: makes the loader of a stage, where the first one has other batches than the `stage` of `batch`
        """
        if self.comm.world == 1 or self.config.engine.name != "ddp":
            return
        first = self.task.stage(0)
        if (first.batch, first.size) != (stage.batch, stage.size):
            with contextlib.closing(load(first)) as loader:
                loader.start(0)
                batch = loader.next()
        prepared = device_batch.ready(batch, self.task, 0, self.config, self.comm)
        for _ in range(2):
            for index, phase in enumerate(self.task.phases(0)):
                self.backward(index, phase, prepared, 0, first)
        for player in self.players.values():
            player.forget_pass()
