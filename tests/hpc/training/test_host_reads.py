"""The host waits for the device once an update, for the numbers of the update before, and never inside."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from hpc import train
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.schema import Data, Engine, Evaluate, Log, Optim, Save
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import Task, build_task
from tests.support import tiny  # noqa: F401 - the tiny jobs
from tests.support.centres import Centres, centres_run
from tests.support.host_reads import HostReads
from tests.support.marked import pack_marked
from tests.support.ranks import launch
from tests.support.rivals import Rivals
from tests.support.runs import TASK, make_run
from tests.support.scenes import pack_scenes
from tests.support.sets import pack_set

ONE = ["step_sync.py take: tolist"]
READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "int": lambda x: int(x[0]),
    "if": lambda x: bool(x[0] > 1),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 1],
    "write by mask": lambda x: x.__setitem__(x > 1, 0.0),
    "slice": lambda x: x[: x[0].to(torch.int64)],
    "alpha": lambda x: x.add_(x, alpha=x[0]),
    "weight": lambda x: torch._foreach_lerp_([x], [x + 1], x[0]),
    "unique": lambda x: x.unique(),
}


@pytest.mark.parametrize("name", READS)
def test_every_kind_of_read_is_seen(name: str) -> None:
    with HostReads() as reads:
        READS[name](torch.tensor([1.0, 2.0, 3.0]))
    assert reads.found


def reads_of_updates(
    comm: Comm, run: str, build: Callable[[Any], Task] = build_task, updates: int = 3
) -> list[list[str]]:
    """What the host reads in each of `updates` updates, after a first one, between two log lines."""
    found = []
    with (
        mock.patch.object(train, "build_task", build),
        contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer,
    ):
        trainer.step()
        for _ in range(updates):
            before = trainer.clock
            with HostReads() as reads:
                trainer.step()
                trainer._after_step(before)
            found.append(reads.found)
        assert updates in {count for _, count in trainer.means.sums.values()}
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def undisturbed_run(path: Path, shards: Path, **changes: Any) -> Path:
    """A run of two ranks in which nothing is due within the first updates."""
    changes = {
        "procs": 2,
        "save": Save(every=1000),
        "eval": Evaluate(every=1000),
        "log": Log(every=1000),
    } | changes
    return make_run(path, shards, **changes)


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "supcon", "bce"])
def test_the_siamese_job_waits_once_an_update(tmp_path: Path, shards: Path, loss: str) -> None:
    run = undisturbed_run(tmp_path / "run", shards, task=TASK | {"loss": loss}, optim=Optim(clip=1.0))
    assert launch(reads_of_updates, 2, str(run), build_task) == [[ONE] * 3] * 2


@pytest.mark.parametrize("micro_batch", [0, 4])
def test_sharded_centres_wait_once_an_update(tmp_path: Path, shards: Path, micro_batch: int) -> None:
    run = centres_run(tmp_path / "run", shards, procs=2, micro_batch=micro_batch)
    assert launch(reads_of_updates, 2, str(run), Centres) == [[ONE] * 3] * 2


@pytest.mark.parametrize("micro_batch", [0, 4])
@pytest.mark.parametrize("norm_stats", ["local", "sync"])
def test_two_players_wait_once_an_update(
    tmp_path: Path, shards: Path, norm_stats: str, micro_batch: int
) -> None:
    options: dict[str, Any] = {"norm_stats": norm_stats, "micro_batch": micro_batch}
    run = undisturbed_run(tmp_path / "run", shards, engine=Engine(name="flat"), **options)
    assert launch(reads_of_updates, 2, str(run), Rivals) == [[ONE] * 3] * 2


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"lamb"}))  # LAMB's step counters are on the host
def test_no_optimizer_waits(tmp_path: Path, shards: Path, name: str) -> None:
    run = undisturbed_run(tmp_path / "run", shards, procs=1, optim=Optim(name=name))
    assert reads_of_updates(Comm(), str(run), build_task) == [ONE] * 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_scenes(tmp_path_factory.mktemp("scenes")).folder


def test_a_job_that_grows_waits_once_an_update(tmp_path: Path, shards: Path) -> None:
    """With settings of its own for a player, R1 at every second update, and the second stage from 96 on."""
    own = {"D": {"optim": {"lr": 0.002, "clip": 1.0}, "ema": {"half_life": 0}}}
    options: dict[str, Any] = {"engine": Engine(name="flat"), "task": {"name": "growing"}, "players": own}
    run = undisturbed_run(tmp_path / "run", shards, batch=16, images=288, **options)
    assert launch(reads_of_updates, 2, str(run), build_task, 5) == [[ONE] * 5] * 2


PAIRS = {"order": "unpaired", "a": "breed==0", "b": "breed==1"}


@pytest.mark.parametrize("micro_batch", [0, 4])
@pytest.mark.parametrize(
    ("task", "data"),
    [
        ({"name": "mosaic", "own": False}, {"fit": "contain"}),
        ({"name": "mosaic", "own": True}, {"members": 4}),
        ({"name": "pairs"}, PAIRS),
    ],
    ids=["mosaic", "own", "pairs"],
)
def test_jobs_with_ops_and_of_pairs_wait_once_an_update(
    tmp_path: Path, scenes: Path, task: dict, data: dict, micro_batch: int
) -> None:
    keys = Data(train=str(scenes), size=24, backend="host", threads=1, **({"order": "plain"} | data))
    options: dict[str, Any] = {"engine": Engine(name="flat"), "task": task, "data": keys}
    run = undisturbed_run(tmp_path / "run", scenes, micro_batch=micro_batch, **options)
    assert launch(reads_of_updates, 2, str(run)) == [[ONE] * 3] * 2


def test_mixup_of_bits_and_a_number_waits_once_an_update(tmp_path: Path) -> None:
    pack_marked(tmp_path / "marked")
    keys = Data(train=str(tmp_path / "marked" / "train"), size=16, backend="host", threads=1)
    options: dict[str, Any] = {"task": {"name": "marks", "alpha": 0.4}, "data": keys}
    run = undisturbed_run(tmp_path / "run", tmp_path, **options)
    assert launch(reads_of_updates, 2, str(run)) == [[ONE] * 3] * 2


def test_a_frozen_trunk_and_a_helper_wait_once_an_update(tmp_path: Path, shards: Path) -> None:
    run = undisturbed_run(tmp_path / "run", shards, task={"name": "adapting", "width": 4, "teacher": 1})
    assert launch(reads_of_updates, 2, str(run)) == [[ONE] * 3] * 2
