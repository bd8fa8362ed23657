"""A step and its exchange: scalars, slots of two members, growth, the best metric."""

import contextlib
import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from data_shards.sampling import order
from hpc import train
from hpc.checkpoints import manager
from hpc.checkpoints.store import Checkpoint
from hpc.cluster.signals import StopReason
from hpc.config.identity import numbers
from hpc.config.schema import Config, Data, Evaluate
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Phase, Spec, Task
from hpc.training import step_sync
from hpc.training.player import Player
from launch.audit.compare import series
from launch.commands.resume import changed_config
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def exchanged(comm: Comm, extra: dict[int, list[str]]) -> str | dict[str, float]:
    """The means of `loss`, `norm` and of what this rank reports besides; or the refusal."""
    batch = Batch(torch.zeros(2, 3, 1, 1), {}, torch.arange(2), torch.arange(2))
    names = ["loss", "norm", *sorted(extra.get(comm.rank, []))]
    scalars = {name: torch.tensor(float(place + comm.rank)) for place, name in enumerate(names)}
    try:
        return step_sync.sync_step(StopReason.NONE, scalars, batch, comm).means
    except UserError as error:
        return str(error)


def test_a_scalar_of_one_rank_is_refused_by_name_on_all() -> None:
    found = launch(exchanged, 2, {0: ["both"], 1: ["both", "lonely"]})
    assert found[0] == found[1]
    assert found[0].startswith("the scalar lonely was reported on 1 of 2 ranks (rank 1) only: ")


def test_any_number_of_scalars_is_averaged_over_the_ranks() -> None:
    many = [f"scalar{number:03d}" for number in range(150)]
    found = launch(exchanged, 2, {0: many, 1: many})
    assert found[0] == found[1] == {name: i + 0.5 for i, name in enumerate(["loss", "norm", *many])}


class Couples(Task):
    """Brings the two members of a slot together."""

    fields = ("identity",)

    def players(self) -> dict[str, nn.Module]:
        return {"net": nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("near", "net")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        assert batch.images.shape[1:] == (2, 3, 32, 32)
        assert batch.labels["identity"].shape == batch.ids.shape == (len(batch), 2)
        a, b = nets["net"](batch.images.flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        return (a - b).square().mean()


def train_couples(comm: Comm, run: str) -> None:
    members = partial(order.PlainOrder, members=2)
    with (
        mock.patch.object(train, "build_task", Couples),
        mock.patch.object(order, "PlainOrder", members),
        contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer,
    ):
        assert trainer.fit() == "finished"


def test_slots_of_two_members_are_trained_on_any_number_of_ranks(tmp_path: Path, shards: Path) -> None:
    runs = []
    for world in (1, 2):
        data = Data(train=str(shards / "train"), eval="", size=32, order="plain", backend="host", threads=1)
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
        step_sync.digest(Batch(torch.zeros(2, 2, 3, 1, 1), {}, given, positions))
        for given in (ids, ids.flip(1), ids + torch.tensor([0, 1]), ids + torch.tensor([1, 0]))
    }
    assert len(found) == 4
    alone = Batch(torch.zeros(2, 3, 1, 1), {}, ids[:, 0], positions)
    assert step_sync.digest(alone) == step_sync.digest(Batch(alone.images, {}, ids[:, :1], positions))


def test_the_wait_for_data_goes_on_counting_where_the_batch_grows(tmp_path: Path, shards: Path) -> None:
    run = make_run(tmp_path / "run", shards, images=96, eval=Evaluate(every=0))
    with contextlib.closing(train.Trainer(RunDir(run), Comm())) as trainer:
        trainer.loader.waited = 1000.0
        with (
            mock.patch.object(trainer.task, "spec", lambda clock: Spec(16 if clock < 48 else 48, 32)),
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
