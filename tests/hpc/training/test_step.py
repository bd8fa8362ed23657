"""A step and its exchange: scalars, slots of two members, growth, the best metric."""

import contextlib
import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc import train
from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.cluster.signals import StopReason
from hpc.config.identity import numbers
from hpc.config.schema import Config, Data, Engine, Evaluate, Log, Save
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Phase, Stage, Task
from hpc.training import step_sync
from hpc.training.player import Player
from hpc.training.step_sync import StepMessage
from launch.audit.compare import series
from launch.commands.resume import changed_config
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


PHASE = Phase("near", "net")


def message_of(loss: float, norm: float, reported: dict[str, float], ids: list[int]) -> StepMessage:
    """The message of an update of one phase at clock 48."""
    message = StepMessage(48)
    scalars = {name: torch.tensor(value) for name, value in reported.items()}
    message.add(PHASE, torch.tensor(loss), torch.tensor(norm), scalars)
    return message.post(
        Batch({"image": torch.zeros(2, 3, 1, 1)}, {}, torch.tensor(ids)[:, None], torch.arange(2))
    )


def exchanged(comm: Comm, extra: dict[int, list[str]]) -> str | dict[str, float]:
    """The means of `loss`, `norm` and of what this rank reports besides; or the refusal."""
    names = sorted(extra.get(comm.rank, []))
    reported = {name: float(place + comm.rank) for place, name in enumerate(names, start=2)}
    message = message_of(float(comm.rank), 1.0 + comm.rank, reported, [0, 1])
    try:
        sync = step_sync.sync_step(message, StopReason.NONE, comm)
        return dict(zip(["loss", "norm", *names], sync.means, strict=True))
    except UserError as error:
        return str(error)


def test_a_scalar_of_one_rank_is_refused_by_name_on_all() -> None:
    found = launch(exchanged, 2, {0: ["both"], 1: ["both", "lonely"]})
    assert found[0] == found[1]
    assert found[0].startswith("the scalar lonely was reported on 1 of 2 ranks (rank 1) only: ")
    assert found[0].endswith("whenever the phase near is due")


def test_any_number_of_scalars_is_averaged_over_the_ranks() -> None:
    many = [f"scalar{number:03d}" for number in range(150)]
    found = launch(exchanged, 2, {0: many, 1: many})
    assert found[0] == found[1] == {name: i + 0.5 for i, name in enumerate(["loss", "norm", *many])}


def refusal_of(comm: Comm, losses: list[float], norm: float) -> str:
    """What the ranks say of an update with these losses, by rank, and a scalar that is never a number."""
    message = message_of(
        losses[comm.rank], norm, {"undefined": math.nan}, [10 * comm.rank, 10 * comm.rank + 1]
    )
    sync = step_sync.sync_step(message, StopReason.NONE, comm)
    try:
        step_sync.refuse_not_finite(sync, message, Config(), comm)
    except UserError as error:
        return str(error)
    return "fine"


@pytest.mark.parametrize(
    ("losses", "norm", "expected"),
    [
        (
            [1.0, math.nan],
            math.nan,
            "the loss of rank 1 is not finite: phase near, clock 48, sample ids [10, 11]:",
        ),
        (
            [1.0, math.inf],
            1.0,
            "the loss of rank 1 is not finite: phase near, clock 48, sample ids [10, 11]:",
        ),
        (
            [1.0, 1.0],
            math.inf,
            "the gradient (summed over all ranks) is not finite: phase near, clock 48, sample ",
        ),
        ([1.0, 1.0], 1.0, "fine"),
    ],
)
def test_what_is_not_finite_is_named_on_all_ranks(losses: list[float], norm: float, expected: str) -> None:
    found = launch(refusal_of, 2, losses, norm)
    assert found[0] == found[1]
    assert found[0].startswith(expected)


class Spoilt(Task):
    """Two players; from clock 64 on, the loss of one phase is not a number on the last rank."""

    spoilt = "judge"

    def players(self) -> dict[str, nn.Module]:
        return {name: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for name in ("G", "D")}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("make", "G"), Phase("judge", "D", every=2)]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        loss = nets[phase.player](batch.images["image"]).square().mean()
        last = self.comm.rank == self.comm.world - 1
        return loss * math.nan if last and clock == 64 and phase.name == self.spoilt else loss


def spoilt_run(comm: Comm, run: str) -> tuple[str, int, bool]:
    """The error of the run, the clock it has reached, and whether its networks are finite still."""
    with (
        mock.patch.object(train, "build_task", Spoilt),
        contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer,
    ):
        with pytest.raises(UserError) as caught:
            trainer.fit()
        tensors = [t for player in trainer.players.values() for t in (*player.module.state_dict().values(),)]
        tensors += [t for player in trainer.players.values() for t in player.evaluated.state_dict().values()]
        return str(caught.value), trainer.clock, all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize(("every", "reached"), [(1000, 96), (80, 80)])
def test_an_update_that_is_not_finite_is_never_saved(
    tmp_path: Path, shards: Path, every: int, reached: int
) -> None:
    """The update of clocks 64 to 80: found after the next one, or before a save that is due at its end."""
    options: dict[str, Any] = {
        "engine": Engine(name="flat"),
        "eval": Evaluate(every=0),
        "log": Log(every=1000),
    }
    run = make_run(tmp_path / "run", shards, procs=2, save=Save(every=every), **options)
    found = launch(spoilt_run, 2, str(run))
    assert found[0] == found[1]
    error, clock, finite = found[0]
    assert error.startswith("the loss of rank 1 is not finite: phase judge, clock 64, sample ids [")
    assert (clock, finite) == (reached, True)
    assert not store.listing(run)


def told_to_stop(comm: Comm, run: str) -> tuple[str, int]:
    """How a run ends whose last rank alone receives a signal, in its fourth update."""
    trainer = train.Trainer(RunDir(Path(run)), comm)

    def signal_once(clock: int) -> list[Phase]:
        if clock == 48 and comm.rank == comm.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return [Phase("embed", "net", coupled=True)]

    with contextlib.closing(trainer), mock.patch.object(trainer.task, "phases", signal_once):
        return trainer.fit(), trainer.clock


def test_ranks_stop_at_the_end_of_the_step_in_which_one_is_told(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, procs=2, log=Log(every=1000))
    assert launch(told_to_stop, 2, str(run)) == [("stopped", 64)] * 2
    (saved,) = map(store.read, store.listing(run))
    assert saved.clock == 64
    assert {count for _, count in saved.monitor["sums"].values()} == {4}  # no update is left under way


class Couples(Task):
    """Brings the two members of a slot together."""

    def players(self) -> dict[str, nn.Module]:
        return {"net": nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("near", "net")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        assert batch.images["image"].shape[1:] == (2, 3, 32, 32)
        assert batch.labels["identity"].shape == batch.ids.shape == (len(batch), 2)
        a, b = nets["net"](batch.images["image"].flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        return (a - b).square().mean()


def train_couples(comm: Comm, run: str) -> None:
    with (
        mock.patch.object(train, "build_task", Couples),
        contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer,
    ):
        assert trainer.fit() == "finished"


def test_slots_of_two_members_are_trained_on_any_number_of_ranks(tmp_path: Path, shards: Path) -> None:
    runs = []
    for world in (1, 2):
        data = Data(train=str(shards / "train"), eval="", size=32, members=2, backend="host", threads=1)
        runs.append(
            make_run(tmp_path / f"run{world}", shards, procs=world, data=data, images=96, micro_batch=4)
        )
        launch(train_couples, world, str(runs[-1]))
    digests = [
        [
            line["samples_digest"]
            for line in map(json.loads, (run / "metrics.jsonl").open())
            if "samples_digest" in line
        ]
        for run in runs
    ]
    assert len(digests[0]) == 3
    assert digests[0] == digests[1]
    one, two = map(series, runs)
    assert one["loss/near"][-1][1] == pytest.approx(two["loss/near"][-1][1], rel=1e-4)


def test_the_digest_sees_every_member() -> None:
    ids, positions = torch.tensor([[1, 2], [3, 4]]), torch.arange(2)
    found = {
        step_sync.digest(Batch({"image": torch.zeros(2, 2, 3, 1, 1)}, {}, given, positions))
        for given in (ids, ids.flip(1), ids + torch.tensor([0, 1]), ids + torch.tensor([1, 0]))
    }
    assert len(found) == 4
    alone = Batch({"image": torch.zeros(2, 3, 1, 1)}, {}, ids[:, :1], positions)
    assert step_sync.digest(alone) not in found


def test_the_wait_for_data_goes_on_counting_where_the_batch_grows(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, images=96, eval=Evaluate(every=0))
    with contextlib.closing(train.Trainer(RunDir(run), Comm())) as trainer:
        trainer.loader.waited = 1000.0
        with (
            mock.patch.object(trainer.task, "stages", [Stage(0, 16, 32), Stage(48, 48, 32)]),
            mock.patch.object(trainer.monitor, "log_progress") as tick,
        ):
            trainer.fit()
    waits = [call.kwargs["data_wait"] for call in tick.call_args_list]
    assert len(waits) == 2
    assert all(wait >= 0 for wait in waits)


def test_a_metric_that_is_not_a_number_is_never_the_best(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards)
    with contextlib.closing(train.Trainer(RunDir(run), Comm())) as trainer:
        assert not trainer.checkpoints.is_best({"eer": math.nan})
        for trainer.clock, value in ((16, math.nan), (32, 0.4)):
            trainer.save({"eer": value})
        assert [trainer.checkpoints.is_best({"eer": value}) for value in (0.3, 0.5, math.nan)] == [
            True,
            False,
            False,
        ]


@pytest.mark.parametrize(
    ("layer", "free"), [(nn.Dropout(0.1), False), (nn.Dropout(0.0), True), (nn.ReLU(), True)]
)
def test_micro_batch_is_held_where_dropout_depends_on_it(layer: nn.Module, free: bool) -> None:
    config = Config(norm_stats="group", micro_batch=8, task={"name": "siamese"})
    saved = Checkpoint(64, 4, meta={"numbers": numbers(config), "micro_batch": 16})
    players = {"net": cast(Player, SimpleNamespace(module=nn.Sequential(layer)))}
    with contextlib.nullcontext() if free else pytest.raises(UserError, match="micro_batch=16, the run says"):
        manager.check_checkpoint(saved, config, players)


def test_micro_batch_is_refused_by_name_on_resume(tmp_path: Path, shards: Path) -> None:
    found: dict[str, Any] = {}
    for stats in ("local", "group"):
        run = RunDir(make_run(tmp_path / stats, shards, norm_stats=stats, micro_batch=8))
        try:
            found[stats] = changed_config(run, run.config(), ["micro_batch=16"]).micro_batch
        except UserError as error:
            found[stats] = str(error)
    assert found["group"] == 16
    assert found["local"].startswith("micro_batch=16 would change run local, where it is micro_batch=8: ")
