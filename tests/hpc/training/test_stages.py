"""A job that grows: killed at a boundary, in mid-fade and after it, it ends as if nothing had happened."""

import contextlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from torch import Tensor, nn

from hpc import train
from hpc.checkpoints import store
from hpc.config.schema import Data, Ema, Engine, Evaluate, Log, Optim, Save
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Phase, Stage, Task, build_task
from hpc.train import Trainer
from tests.support import tiny
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


def growing_run(path: Path, shards: Path, **changes: Any) -> Path:
    data = Data(train=str(shards / "train"), size=32, backend="host", threads=1)
    options: dict[str, Any] = {"images": 288, "data": data, "engine": Engine(name="flat")}
    options |= {"save": Save(every=32), "eval": Evaluate(every=1000), "log": Log(every=1000)}
    return make_run(path, shards, task={"name": "growing"}, **(options | changes))


@pytest.mark.parametrize("procs", [1, 2])
def test_a_run_that_grows_is_resumed_bit_for_bit(tmp_path: Path, shards: Path, procs: int) -> None:
    """Saves at 96 and 192 are those of the boundaries; 128 is in mid-fade, 208 after a reset."""
    runs = [growing_run(tmp_path / name, shards, procs=procs) for name in ("straight", "killed")]
    launch(tiny.train_until, procs, str(runs[0]), [])
    found = launch(tiny.train_until, procs, str(runs[1]), [112, 144, 208])
    assert found == [[0, 96, 128, 192]] * procs
    if procs == 1:  # inside the saves of the boundaries
        runs.append(growing_run(tmp_path / "saving", shards, procs=1))
        assert launch(tiny.train_until, 1, str(runs[-1]), [96, 192], "save2") == [[0, 64, 160]]
        assert tiny.final(runs[-1]) == tiny.final(runs[0])
    one, other = map(tiny.final, runs[:2])
    assert one["clock"] == 288
    assert one["updates"] == 3 + 6 + 6
    assert one == other


def test_moments_are_reset_where_the_stage_says_so(tmp_path: Path, shards: Path) -> None:
    run = growing_run(tmp_path / "run", shards, save=Save(every=32, last=20), ema=Ema())
    launch(tiny.train_until, 1, str(run), [])
    unstepped = {
        saved.clock: {name for name in saved.optim["D"] if name.endswith("/unstepped")}
        for saved in map(store.read, store.listing(run))
    }
    weights = len(saved_weights(run))
    assert {clock: len(names) for clock, names in unstepped.items() if names} == {96: weights, 192: weights}


def saved_weights(run: Path) -> list[str]:
    tensors = store.read(store.listing(run)[-1]).optim["D"]
    return [name for name in tensors if name.endswith("/exp_avg")]


def test_a_lazy_phase_corrects_rate_and_betas(tmp_path: Path, shards: Path) -> None:
    """R1 is due at every second update and has a step of its own: c = 2 / 3, for its player alone."""
    optim = Optim(name="adam", lr=0.01, betas=[0.5, 0.99], schedule="constant")
    run = growing_run(tmp_path / "run", shards, optim=optim)
    with contextlib.closing(Trainer(RunDir(run), Comm())) as trainer:
        trainer.step()
        (judge,), (maker,) = (
            {(group["lr"], *group["betas"]) for group in trainer.players[name].optimizer.param_groups}
            for name in ("D", "G")
        )
    assert judge == pytest.approx((0.01 * 2 / 3, 0.5 ** (2 / 3), 0.99 ** (2 / 3)))
    assert maker == (0.01, 0.5, 0.99)


def test_a_task_asks_for_stage_and_fade_by_the_clock(tmp_path: Path, shards: Path) -> None:
    task = build_task(RunDir(growing_run(tmp_path / "run", shards)).config())
    assert [task.stage(clock).level for clock in (0, 95, 96, 191, 192, 500)] == [0, 0, 1, 1, 2, 2]
    assert [task.fade(clock) for clock in (0, 96, 120, 144, 191, 208)] == [1.0, 0.0, 0.5, 1.0, 1.0, 0.25]


def test_each_player_has_its_own_settings(tmp_path: Path, shards: Path) -> None:
    """The rates are those of the log; only G keeps an average; the second start shows the same head."""
    own = {"D": {"optim": {"lr": 0.5, "schedule": "constant", "warmup": 0}, "ema": {"half_life": 0}}}
    run = growing_run(tmp_path / "run", shards, images=64, log=Log(every=32), players=own)
    launch(tiny.train_until, 1, str(run), [])
    rates = {
        name: {line[name] for line in map(json.loads, (run / "metrics.jsonl").open()) if name in line}
        for name in ("lr_D", "lr_G")
    }
    assert rates == {"lr_D": {0.5 * (2 / 3)}, "lr_G": {0.0, 0.0005}}  # D has a lazy phase
    saved = store.read(store.listing(run)[-1])
    assert saved.ema.keys() == {"G"}


class Lazy(Task):
    """One player has a step in every fourth update; the other one has none before clock 64."""

    def players(self) -> dict[str, nn.Module]:
        return {name: nn.Conv2d(3, 4, 3) for name in ("G", "D")}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("make", "G", every=4), *([Phase("judge", "D")] if clock < 64 else [])]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return nets[phase.player](batch.images["image"]).square().mean()


def test_the_logged_rate_of_a_lazy_player_is_the_same_after_a_resume(tmp_path: Path, shards: Path) -> None:
    rates = {}
    for name, kills in (("straight", []), ("killed", [48, 80])):
        data = Data(train=str(shards / "train"), size=16, backend="host", threads=1)
        options: dict[str, Any] = {"images": 112, "data": data, "engine": Engine(name="flat"), "ema": Ema()}
        options |= {"save": Save(every=16), "eval": Evaluate(every=1000), "log": Log(every=16)}
        run = make_run(tmp_path / name, shards, optim=Optim(schedule="linear"), **options)
        with mock.patch.object(train, "build_task", Lazy):
            tiny.train_until(Comm(), str(run), kills)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        rates[name] = [(line["clock"], line["lr_G"], line["lr_D"]) for line in lines if "lr_G" in line]
    assert rates["killed"] == rates["straight"]
    assert [clock for clock, make, judge in rates["straight"] if not judge] == [80, 96, 112]
    assert all(make > 0 for _, make, _ in rates["straight"])


class Swapping(Task):
    """From clock 48 on another phase comes first, whose gradients are ready in another order."""

    stages = [Stage(0, 24, 16), Stage(72, 24, 24)]  # noqa: RUF012

    def players(self) -> dict[str, nn.Module]:
        return {"net": Both()}

    def phases(self, clock: int) -> list[Phase]:
        return [*([Phase("ba", "net")] if clock >= 48 else []), Phase("ab", "net")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return nets["net"](batch, phase.name, self.stage(clock).size).square().mean()


class Both(nn.Module):
    """Two layers, of which the phase says the order."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Linear(3 * 64, 60) for _ in range(2))

    def forward(self, batch: Batch, order: str, size: int) -> Tensor:
        image = batch.images["image"]
        assert image.shape[-1] == size  # in warm-up passes too
        x = nn.functional.adaptive_avg_pool2d(image, 8).flatten(1)
        first, second = (getattr(self, name)(x).tanh() for name in order)
        return first * second.exp()


def swapping(comm: Comm, run: str, clocks: list[int]) -> list[int]:
    with mock.patch.object(train, "build_task", Swapping), mock.patch.object(train.startup, "check_world"):
        return tiny.train_until(comm, run, clocks)


def test_ddp_sums_in_the_order_of_the_first_update_after_a_resume_too(tmp_path: Path, shards: Path) -> None:
    """Of three ranks the order matters: the buckets are laid out by the phases of clock 0."""
    data = Data(train=str(shards / "train"), size=16, order="plain", backend="host", threads=1)
    options: dict[str, Any] = {"images": 144, "batch": 24, "procs": 3, "data": data, "ema": Ema()}
    options |= {"save": Save(every=24), "eval": Evaluate(every=1000), "log": Log(every=1000)}
    options |= {"engine": Engine(name="ddp")}
    runs = [make_run(tmp_path / name, shards, **options) for name in ("straight", "killed")]
    launch(swapping, 3, str(runs[0]), [])
    assert launch(swapping, 3, str(runs[1]), [120]) == [[0, 96]] * 3
    assert tiny.final(runs[0]) == tiny.final(runs[1])
