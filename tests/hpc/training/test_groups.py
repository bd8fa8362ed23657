"""A frozen trunk, a frozen teacher, and a head with a rate of its own: across resumes, under every engine."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.errors import UserError
from hpc.checkpoints import store
from hpc.config.parse import save_config
from hpc.config.schema import DeepSpeed, Engine, Evaluate, Log, Optim, Save
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from tests.support import tiny
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


def adapting_run(path: Path, shards: Path, **changes: Any) -> Path:
    options: dict[str, Any] = {"images": 96, "task": {"name": "adapting", "width": 4, "teacher": 1}}
    options |= {"save": Save(every=16, last=9), "eval": Evaluate(every=1000), "log": Log(every=1000)}
    return make_run(path, shards, **(options | changes))


def engine(name: str) -> Engine:
    name, _, stage = name.partition(":")
    return Engine(name=name, deepspeed=DeepSpeed(stage=int(stage))) if stage else Engine(name=name)


@pytest.mark.parametrize(("procs", "name"), [(1, "flat"), (2, "ddp"), (2, "flat"), (2, "deepspeed:3")])
def test_what_is_frozen_stays_as_it_was(tmp_path: Path, shards: Path, procs: int, name: str) -> None:
    run = adapting_run(tmp_path / "run", shards, procs=procs, engine=engine(name))
    assert launch(tiny.train_until, procs, str(run), [48]) == [[0, 32]] * procs
    first, *_, last = (store.read(path) for path in store.listing(run))
    same = {
        key for key, tensor in first.players["net"].items() if torch.equal(tensor, last.players["net"][key])
    }
    assert same == {key for key in first.players["net"] if key.startswith("0.")}
    assert {key.partition("/")[0] for key in last.optim["net"]} == {
        f"2.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")
    }
    assert first.meta["helpers"] == last.meta["helpers"]
    assert first.meta["helpers"].keys() == {"teacher"}


def test_the_head_has_ten_times_the_rate(tmp_path: Path, shards: Path) -> None:
    run = adapting_run(tmp_path / "run", shards, optim=Optim(lr=0.01, schedule="constant"))
    with contextlib.closing(Trainer(RunDir(run), Comm())) as trainer:
        trainer.step()
        rates = {group["name"]: group["lr"] for group in trainer.players["net"].optimizer.param_groups}
        assert rates == {
            "decayed": 0.01,
            "undecayed": 0.01,
            "2.2.* decayed": 0.1,
            "2.2.* undecayed": 0.1,
        }
        assert trainer.players["net"].rate == 0.01


def test_another_teacher_is_refused_on_resume(tmp_path: Path, shards: Path) -> None:
    """The weights of a helper may come from a file: the same config, other numbers."""
    run = adapting_run(tmp_path / "run", shards, images=16)
    launch(tiny.train_until, 1, str(run), [])
    config = RunDir(run).config()
    for path in store.listing(run):
        saved = store.read(path)
        saved.meta["numbers"]["task.teacher"] = 2
        meta = {key: saved.meta[key] for key in ("task", "identity", "numbers", "metric", "helpers")}
        path.rename(tmp_path / "old")
        store.save(run, dataclasses.replace(saved, meta=meta))
    save_config(dataclasses.replace(config, task=config.task | {"teacher": 2}), run / "config.yaml")
    with pytest.raises(UserError, match=r"the frozen helper teacher has the digest .* give the weights that"):
        Trainer(RunDir(run), Comm())
