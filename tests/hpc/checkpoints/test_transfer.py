"""Weights of another run: taken by name at the fresh start only, refused by name where they do not fit."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.errors import UserError
from data_shards.shard_format.shard_set import ShardSet
from hpc.checkpoints import store, transfer
from hpc.config.check import check
from hpc.config.identity import identity
from hpc.config.schema import Config, Ema, Engine, Evaluate, Init, Log, Save
from hpc.data import known_people
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from launch.cli import main
from tests.support import tiny
from tests.support.judged import judged_run
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set

TASK = {"name": "adapting", "width": 4, "teacher": 1}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


def small_run(path: Path, shards: Path, **changes: Any) -> Path:
    options: dict[str, Any] = {"images": 64, "task": dict(TASK), "engine": Engine(name="flat")}
    options |= {"save": Save(every=32, last=9), "eval": Evaluate(every=1000), "log": Log(every=1000)}
    return make_run(path, shards, **(options | changes))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    run = small_run(tmp_path_factory.mktemp("runs") / "source", shards, ema=Ema(half_life=40))
    launch(tiny.train_until, 1, str(run), [])
    return run


def of(source: Path, **keys: Any) -> Init:
    return Init(run=str(source), **keys)


@pytest.mark.parametrize(("procs", "name"), [(1, "flat"), (2, "ddp"), (2, "deepspeed")])
def test_a_run_begins_with_the_average_of_another(
    tmp_path: Path, shards: Path, source: Path, procs: int, name: str
) -> None:
    """Killed before its first save, and after it."""
    init = of(source, checkpoint="32", skip=["net.2.2.*"], freeze=["net.2.0.*"])
    run = small_run(tmp_path / "run", shards, procs=procs, init=init, engine=Engine(name=name), seed=5)
    assert launch(tiny.train_until, procs, str(run), [16, 48]) == [[0, 0, 32]] * procs
    given, first = (store.read(store.listing(path)[0]) for path in (source, run))
    taken, now = given.ema["net"], first.players["net"]
    frozen = {name for name in now if name.startswith(("0.", "2.0."))}
    assert all(torch.equal(now[name], taken[name]) for name in frozen)
    assert not torch.equal(now["2.1.weight"], taken["2.1.weight"])
    record = json.loads((run / "init.json").read_text())
    assert (record["run"], record["clock"]) == (str(source), 32)


def test_a_resume_does_not_ask_for_the_source(tmp_path: Path, shards: Path, source: Path) -> None:
    moved = shutil.copytree(source, tmp_path / "moved", symlinks=True)
    straight, killed = (small_run(tmp_path / name, shards, init=of(moved)) for name in ("straight", "killed"))
    launch(tiny.train_until, 1, str(straight), [])
    with contextlib.closing(Trainer(RunDir(killed), Comm())) as trainer:
        while trainer.clock < 32:
            before = trainer.clock
            trainer.step()
        trainer._interval_start = (0.0, 0, 0.0)
        trainer._after_step(before)
    shutil.rmtree(moved)
    launch(tiny.train_until, 1, str(killed), [])
    assert tiny.final(straight) == tiny.final(killed)


@pytest.mark.parametrize(
    ("task", "init", "message"),
    [
        (
            {"width": 6},
            {},
            "net.0.0.bias has the shape [4], this network's [6] (and 6 more): leave it as it is",
        ),
        (
            {"width": 6},
            {"skip": ["net.0.*"]},
            "net.2.0.weight has the shape [8, 4], this network's [8, 6]: leave",
        ),
        ({}, {"skip": ["net.3.*"]}, "init.skip: net.3.* matches no tensor: use names such as net.0.0."),
        ({}, {"skip": ["net.*"]}, "init.skip=[net.*] leaves nothing of "),
        ({}, {"checkpoint": "7"}, "it has no checkpoint=7: use best, last or one of 32, 64"),
        ({}, {"checkpoint": "9" * 5000}, "9: use best, last or one of 32, 64"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, shards: Path, source: Path, task: dict[str, Any], init: dict[str, Any], message: str
) -> None:
    run = small_run(tmp_path / "run", shards, task=TASK | task, init=of(source, **init))
    with pytest.raises(UserError) as error:
        Trainer(RunDir(run), Comm())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_checkpoint_than_the_recorded_one_is_refused(
    tmp_path: Path, shards: Path, source: Path
) -> None:
    run = RunDir(small_run(tmp_path / "run", shards, init=of(source)))
    record = transfer.record_of(run, run.config())
    assert record["clock"] == 64
    assert transfer.read(record).keys() >= {"net.0.0.weight", "net.2.2.bias"}
    with pytest.raises(UserError, match="is not the checkpoint of this run's submission: submit it again"):
        transfer.read(record | {"sha256": "0" * 64})
    with pytest.raises(UserError, match="is gone: submit it again"):
        transfer.read(record | {"clock": 33})


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (Init(skip=["net.a"]), "init.skip=[net.a] has no effect without weights of a run: type init"),
        (Init(freeze=["net.a"]), "init.freeze=[net.a] has no effect"),
        (
            Init(run="x", checkpoint="newest"),
            "init.checkpoint=newest is not known: use best, last or a",
        ),
    ],
)
def test_keys_without_a_meaning_are_refused(init: Init, message: str) -> None:
    with pytest.raises(UserError) as error:
        check(Config(task=dict(TASK), init=init))
    assert message in str(error.value)


def test_the_keys_are_part_of_the_identity() -> None:
    plain = Config(task=dict(TASK))
    others = [dataclasses.replace(plain, init=Init(run="x", **keys)) for keys in ({}, {"skip": ["net.a"]})]
    assert len({identity(config) for config in (plain, *others)}) == 3


@pytest.fixture
def words(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The words of a submission of `adapting`, which gets a yaml."""
    monkeypatch.chdir(tmp_path)
    lines = ["batch: 16", "images: 64", "engine: {name: flat}"]
    lines += ["task:", "  name: adapting", "  width: 4", "  teacher: 1"]
    data = [f"data.train={shards / 'train'}", "data.size=32", "data.backend=host"]
    with tiny.with_yaml(tmp_path / "conf", "adapting", *lines):
        yield ["submit", "task=adapting", "cluster=local", "prepare=true", *data]


def test_submit_records_the_checkpoint_or_refuses_the_run(
    words: list[str], source: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = judged_run(tmp_path / "other", shards)
    assert main([*words, f"init.run={source}", "name=good"]) == 0
    record = json.loads((tmp_path / "runs" / "good" / "init.json").read_text())
    assert (record["run"], record["clock"]) == (str(source), 64)
    assert RunDir(tmp_path / "runs" / "good").config().init.run == str(source)
    good, judged, seen = tmp_path / "runs" / "good", shards / "eval", shards / "train"
    assert known_people.read(good, "", role=known_people.BEGAN) is not None
    assert known_people.shared_with_any(known_people.of_training(good, ""), ShardSet.open(shards / "train"))
    capsys.readouterr()
    for more, message in (
        ([f"init.run={source}", "task.width=5"], "net.0.0.bias has the shape [4], this network's [5]"),
        (["init.run=nowhere"], "nowhere"),
        (
            [f"init.run={source}", f"data.train={judged}", f"data.eval={seen}"],
            "people of the training",
        ),
        (
            [f"init.run={other}"],
            "has another architecture, it lacks 16 of 16 tensors, net.0.0",
        ),
        (
            [f"init.run={source}", "init.freeze=[head.*]"],
            "init.freeze: head.* matches no tensor: use names ",
        ),
        (
            [f"init.run={source}", "init.freeze=[net.*]"],
            "everything of player net is frozen: leave a parameter to be trained",
        ),
        (["players.H.optim.lr=1"], "unknown key players.H.optim.lr"),
        (["batch=15", "procs=2"], "batch=15 is not divisible by 2 ranks: use 14 or 16"),
    ):
        assert main([*words, *more, "name=bad"]) != 0
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not (tmp_path / "runs" / "bad").exists()
