"""The trainer (`python -m hpc.train RUN`): build, resume, fit, step, evaluate, save, stop. Read this first.

It knows no task, only the interface in `hpc/task.py`. The clock is the number of images seen by all ranks;
what happens when is a function of it. A player (`training/player.py`) is one network with its engine and
optimizer. The passes of a phase are in `training/passes.py`, loaders in `data/loaders.py`, checkpoints
in `checkpoints/manager.py`.
"""

import os
import sys

if __name__ == "__main__":  # the rank handles signals before torch is loaded, and until its process ends
    from hpc import rank

    if len(sys.argv) != 2:
        sys.exit("usage: python -m hpc.train RUN")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(rank.main(sys.argv[1]))

import contextlib
import functools
import time
from pathlib import Path

from torch import nn

from hpc.checkpoints import task_state, transfer
from hpc.checkpoints.manager import CheckpointManager
from hpc.cluster.signals import SignalListener, StopReason
from hpc.config import held_out
from hpc.data import loaders
from hpc.data.staging import StagingStopped
from hpc.distributed.comm import Comm, connect, disconnect, rank_from_env
from hpc.evaluation import run as evaluation
from hpc.evaluation.base import JudgedSet, merged
from hpc.monitor import monitor
from hpc.monitor.monitor import Monitor
from hpc.optim.schedule import lazy_share, settings_at
from hpc.runs import failures
from hpc.runs.goodput import TimeLedger
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, build_task
from hpc.training import device_batch, fault_injection, helpers, startup, step_sync
from hpc.training.due import due_after
from hpc.training.networks import build_networks
from hpc.training.passes import Passes
from hpc.training.validation import monitor_images


class Trainer:
    """One rank of a run. `listener`: signals since the process began (None = only those while `fit` runs)."""

    def __init__(
        self,
        run: RunDir,
        comm: Comm,
        ledger: TimeLedger | None = None,
        listener: SignalListener | None = None,
    ) -> None:
        self.run, self.comm, self._process_listener = run, comm, listener
        self.ledger = ledger or TimeLedger(run, main=comm.main)
        self.config = config = startup.resolved(run, comm)
        startup.check_world(config, comm)
        startup.threads_and_algorithms(config, comm)
        self.clock = self.updates = 0
        self.means = step_sync.RunningMeans()
        self.scalars = step_sync.StepScalars()
        self._posted: step_sync.StepMessage | None = None  # the last update, which is not exchanged yet
        self._listener: SignalListener | None = None  # while `fit` runs
        self.stop = StopReason.NONE
        self.task = build_task(config)
        self.task.comm, self.task.report = comm, self.scalars.report
        self.players, self.helpers = build_networks(config, self.task, comm)
        self.passes = Passes(config, self.task, self.players, self.helpers, self.scalars, comm)
        self.checkpoints = CheckpointManager(run, config, self.task, self.players, comm)
        self.checkpoints.helpers = helpers.digests(self.helpers)
        saved = self.checkpoints.find()
        self.clock = self.task.clock = saved.clock if saved else 0
        self.stage = self.task.stage(self.clock)
        stop_reason = (lambda: listener.reason) if listener else (lambda: StopReason.NONE)
        self.sets = loaders.shard_sets(config, self.task, comm, stop_reason)
        self.task.begin(self.sets)
        load = functools.partial(loaders.train_loader, config, self.task, self.sets, comm=comm)
        self.loader = load(self.stage)
        self.loader.start(self.clock)
        began = ""
        try:
            self.held_out = loaders.eval_loader(config, self.task, self.sets, comm)
            self._ahead: Batch | None = self.loader.next()
            state = task_state.copied(self.task.state())
            self.passes.warm_up(self._ahead, self.stage, load)
            self.task.load_state(state)
            if saved:
                self.checkpoints.restore(saved)
                self.updates, self.means = saved.updates, step_sync.RunningMeans(**saved.monitor)
            elif config.init.run:
                began = transfer.begin(run, config, self.players, comm)
            resumed = saved.clock if saved else None
            self.monitor = Monitor(run.path, config, rank=comm.rank, resume_clock=resumed)
        except BaseException:
            self.loader.close()  # its threads must not outlive the interpreter
            raise
        self.monitor.note(startup.first_lines(config, comm, self.players, self.sets, self.clock, self.stage))
        if began:
            self.monitor.note(began)

    def fit(self) -> str:
        """Train to the end of the run, or to the first agreed signal; return `finished` or `stopped`."""
        self._interval_start = (time.perf_counter(), self.clock, self.loader.waited)
        self.ledger.waited(self.loader.waited)
        self.ledger.write(self.clock)
        self.ledger.enter("train")
        kept = self._process_listener
        with contextlib.nullcontext(kept) if kept else contextlib.closing(SignalListener()) as self._listener:
            while self.clock < self.config.images and not (self.stop or self.task.ended()):
                before = self.clock
                self.step()
                self._after_step(before)
            if self.stop:
                self.save()
            with self.ledger.spend("save"):
                self.checkpoints.finish()
        self.ledger.enter("shutdown")
        if self.stop:
            self.monitor.note(f"stopped by {self.stop.text} at {self.clock:,} images; saved")
        elif self.clock < self.config.images:
            self.monitor.note(f"the task ended the run at {self.clock:,} images; saved")
        return "stopped" if self.stop else "finished"

    def step(self) -> None:
        """One update of every player whose phase is due; the clock advances by the global batch."""
        self.batch = batch = self._next_batch()
        message = step_sync.StepMessage(self.clock)
        self._run_phases(batch, message)
        self.clock += self.stage.batch
        self.task.clock = self.clock
        self.updates += 1
        for player in self.players.values():
            player.average(self.clock, self.stage.batch)
        self._exchange(following=message.post(batch))
        self._enter_stage()

    def _run_phases(self, batch: Batch, message: step_sync.StepMessage) -> None:
        """Run the phases that are due in their order: the passes, the reduction and the step of a player."""
        phases = self.task.phases(self.clock)
        # The rates that the log shows follow the clock alone, since no checkpoint holds them.
        for player in self.players.values():
            player.rate = 0.0
        for index, phase in enumerate(phases):
            player = self.players[phase.player]
            lazy = lazy_share(other.every for other in phases if other.player == phase.player)
            player.rate, decays, biases = settings_at(
                player.optim, self.clock, self.config.images, lazy, self.stage.rate
            )
            if self.updates % phase.every:
                continue
            loss = self.passes.backward(index, phase, batch, self.clock, self.stage)
            player.engine.reduce()
            norm = player.norm_of_gradient()
            message.add(phase, loss, norm, self.scalars.in_order())
            player.update(player.rate, norm, decays, biases)

    def _after_step(self, before: int) -> None:
        fault_injection.crash_point("step", self.clock, self.comm.rank)
        now = due_after(self.config, before, self.clock, self.updates)
        if any(now) or self.stop or self.task.ended():  # all that is seen or kept is finite
            self._exchange()
        if now.log:
            self._log_interval()
        if now.histograms:
            for player in self.players.values():
                self.monitor.histograms(self.clock, dict(player.engine.whole().named_parameters()))
        if now.compare:
            step_sync.compare_ranks(self.players, self.clock, self.comm)
        metrics: dict[str, float] = {}
        if now.evaluate:
            with self.ledger.spend("evaluate"):
                metrics = self.evaluate()
            self.task.judged(metrics, self.clock)
            for shown in monitor_images(self.task, self.players, self.helpers, self.batch, self.clock):
                self.monitor.images(self.clock, shown.name, shown.images, keep=shown.keep)
        if now.save or self.checkpoints.is_best(metrics) or self.task.ended():
            self.save(metrics)

    def _enter_stage(self) -> None:
        """Enter the stage that the update has reached: before an evaluation or a save."""
        before, self.stage = self.stage, self.task.stage(self.clock)
        if self.stage == before:
            return
        if self.stage.reset_moments:
            for player in self.players.values():
                player.reset_moments()
        if (self.stage.batch, self.stage.size) != (before.batch, before.size):
            self.loader = loaders.successor(
                self.loader, self.config, self.task, self.sets, self.stage, self.comm
            )
            self.loader.start(self.clock)
        self.monitor.note(startup.stage_line(self.stage, self.comm))

    def _next_batch(self) -> Batch:
        batch, self._ahead = self._ahead or self.loader.next(), None
        return device_batch.ready(batch, self.task, self.clock, self.config, self.comm)

    def _exchange(self, following: step_sync.StepMessage | None = None) -> None:
        """Exchange signals, scalars and finiteness of the update that is posted, if any; wait for it."""
        message, self._posted = self._posted, following
        if message is None:
            return
        reason = self._listener.reason if self._listener else StopReason.NONE
        sync = step_sync.sync_step(message, reason, self.comm, failed=self.checkpoints.failed)
        if sync.failed:
            self.checkpoints.finish()
        step_sync.refuse_not_finite(sync, message, self.config, self.comm)
        self.stop = sync.stop
        self.means.add_update(message.series(), sync)

    def _log_interval(self) -> None:
        """Report the updates since the last log line, and start the next interval."""
        (start, clock, waited), now = self._interval_start, time.perf_counter()
        self._interval_start = (now, self.clock, self.loader.waited)
        self.monitor.log_progress(
            self.clock,
            losses=self.means.of_group("loss"),
            rates={name: player.rate for name, player in self.players.items()},
            grad_norm=self.means.of_group("norm"),
            images_per_s=(self.clock - clock) / max(now - start, 1e-9),
            data_wait=(self.loader.waited - waited) / max(now - start, 1e-9),
            memory_mb=monitor.memory_mb(self.comm),
        )
        self.monitor.scalars(self.clock, {"samples_digest": self.means.digest}, group="data")
        self.means = step_sync.RunningMeans()
        self.ledger.waited(self.loader.waited)
        self.ledger.write(self.clock, **self.checkpoints.measured)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the held-out set, if there is one, on all ranks; log the report and return its scalars."""
        if self.held_out is None:
            return {}
        loader, source = self.held_out, self.sets[held_out.validation(self.config.data)]
        reports, thumbnails = evaluation.evaluate(
            self.task,
            self._evaluated(),
            JudgedSet(lambda comm: loader, source),
            self.comm,
            channels_last=self.config.channels_last,
            thumbnails=self.config.log.projector,
        )
        fields = self.task.plan.fields(held_out.validation(self.config.data))
        report, labels = merged(reports), evaluation.labels_of(thumbnails, source, fields)
        self.monitor.report(self.clock, report, thumbnails, labels=labels)
        self._interval_start = (time.perf_counter(), self.clock, self.loader.waited)
        return report.scalars

    def _evaluated(self) -> dict[str, nn.Module]:
        """Return the networks that evaluations use: averages where they are kept, and helpers."""
        return {name: player.evaluated for name, player in self.players.items()} | self.helpers

    def save(self, metrics: dict[str, float] | None = None) -> None:
        """Commit a checkpoint of this clock; all ranks wait for it."""
        with self.ledger.spend("save"):
            self.monitor.flush()
            self.checkpoints.save(self.clock, self.updates, self.means, metrics or {})
        self.ledger.write(self.clock, **self.checkpoints.measured)

    def close(self) -> None:
        self.checkpoints.close()
        self.loader.close()
        self.monitor.close()


def main(run: str, listener: SignalListener | None = None) -> int:
    """Train the run in directory `run` to its end or to a signal; return the exit code of this rank."""
    folder, (rank, world, _) = RunDir(Path(run)), rank_from_env()
    with failures.recorded(folder, rank, world) as place:
        ledger = TimeLedger(folder, main=rank == 0)
        config = folder.config()
        startup.refuse_foreign_code(folder)
        comm = connect(folder.path, timeout=config.hang_timeout)
        with startup.locked(folder, comm):
            ledger.write(None)
            try:
                trainer = Trainer(folder, comm, ledger, listener)
            except StagingStopped as stopped:
                if comm.main:
                    folder.write_status(state="stopped", asked=stopped.reason)
            else:
                _train(trainer, place)
                ledger.write(place.clock, left=True)
    disconnect()
    return 0


def _train(trainer: Trainer, place: failures.Place) -> None:
    try:
        state = trainer.fit()
        if trainer.comm.main:
            trainer.run.write_status(state=state, clock=trainer.clock, asked=trainer.stop)
    finally:
        place.clock = trainer.clock
        trainer.close()
