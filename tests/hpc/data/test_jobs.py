"""Tiny jobs on scenes: pairs of two subsets, and mosaics of four; killed, resumed, at 1 and 2 ranks."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from data_shards.files import write_json
from data_shards.shard_format.shard_set import ShardSet
from hpc.config.check import check
from hpc.config.identity import identity
from hpc.config.schema import Config, Data, Engine, Evaluate, Log, Optim, Save
from hpc.data import orders
from hpc.distributed.comm import Comm
from hpc.evaluation.run import labels_of
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from launch.start import data as plan
from launch.start import set_digests
from tests.support import tiny
from tests.support.ranks import launch
from tests.support.runs import TASK, make_run
from tests.support.scenes import pack_scenes
from tests.support.sets import pack_set

PAIRS = {"order": "unpaired", "a": "breed==0", "b": "breed==1"}
JOBS = {
    "pairs": ({"name": "pairs"}, PAIRS),
    "mosaic": ({"name": "mosaic", "own": False}, {"fit": "contain"}),
    "own": ({"name": "mosaic", "own": True}, {"members": 4}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_scenes(tmp_path_factory.mktemp("scenes")).folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_scenes(tmp_path_factory.mktemp("other"), 10, seed=1).folder


def run_of(path: Path, folder: Path, job: str, **changes: Any) -> Path:
    task, keys = JOBS[job]
    data = Data(train=str(folder), size=24, backend="host", threads=1, **(keys | changes.pop("keys", {})))
    options: dict[str, Any] = {"images": 96, "data": data, "engine": Engine(name="flat"), "batch": 16}
    options |= {
        "save": Save(every=32),
        "eval": Evaluate(every=1000),
        "log": Log(every=1000),
        "task": dict(task),
    }
    options |= {"optim": Optim(name="sgd", lr=0.01, schedule="constant")}
    return make_run(path, folder, **(options | changes))


@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize("job", JOBS)
def test_a_killed_job_ends_as_if_nothing_had_happened(
    tmp_path: Path, folder: Path, job: str, procs: int
) -> None:
    runs = [run_of(tmp_path / name, folder, job, procs=procs) for name in ("straight", "killed")]
    for run in runs:
        check(RunDir(run).config())
    launch(tiny.train_until, procs, str(runs[0]), [])
    assert launch(tiny.train_until, procs, str(runs[1]), [48]) == [[0, 32]] * procs
    assert tiny.final(runs[0]) == tiny.final(runs[1])


def weights(comm: Comm, run: str) -> dict[str, Any]:
    with contextlib.closing(Trainer(RunDir(Path(run)), comm)) as trainer:
        for _ in range(2):
            trainer.step()
        players = trainer.players.items()
        return {
            f"{name}.{key}": value.detach().numpy().copy()
            for name, player in players
            for key, value in player.engine.module.state_dict().items()
        }


@pytest.mark.parametrize("job", JOBS)
def test_two_ranks_train_as_one_does(tmp_path: Path, folder: Path, job: str) -> None:
    """Also with micro batches: ops see the whole share before it is cut."""
    found = [
        launch(
            weights,
            procs,
            str(run_of(tmp_path / f"{procs}-{micro}", folder, job, procs=procs, micro_batch=micro)),
        )[0]
        for procs, micro in ((1, 0), (2, 0), (1, 4))
    ]
    for others in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_allclose(others[name], value, rtol=1e-4, atol=1e-6)


def config_of(folder: Path, job: str, **keys: Any) -> Config:
    task, own = JOBS[job]
    data = Data(train=str(folder), size=24, backend="host", threads=1, **(own | keys))
    return plan.locate_data(Config(batch=16, images=96, data=data, task=dict(task)))


def test_b_comes_from_a_set_of_its_own(tmp_path: Path, folder: Path, other: Path) -> None:
    config = config_of(folder, "pairs", train_b=str(other))
    check(config)
    sets = plan.check_data(config)
    assert list(sets) == ["train", "train_b"]
    order = orders.build(config, orders.training_sets(sets))
    slots = order.slots(0, 24)
    assert (slots.sets == [0, 1]).all()
    assert (sets["train"].labels["breed"][slots.ids[:, 0]] == 0).all()
    assert (sets["train_b"].labels["breed"][slots.ids[:, 1]] == 1).all()
    with contextlib.closing(
        Trainer(RunDir(run_of(tmp_path / "run", folder, "pairs", keys={"train_b": str(other)})), Comm())
    ) as trainer:
        trainer.step()
        assert trainer.batch.sets.tolist() == [[0, 1]] * 16
    assert set_digests.digests(config)["train_b"] == sets["train_b"].digest


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"a": "breed==7"},
            r"data\.a=breed==7 matches none of the 24 rows of .*breed runs from 0 to 1.*: use",
        ),
        ({"b": "hats==1"}, r"data\.b=hats==1: .* has no label `hats`: use one of identity, age, breed"),
        ({"train_b": "/nowhere"}, r"data\.train_b=/nowhere does not exist: `rostro pack` makes it"),
    ],
)
def test_sides_that_the_set_cannot_give_are_refused_at_submit(folder: Path, keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan.check_data(config_of(folder, "pairs", **keys))


def test_a_set_must_hold_the_fields_of_both_sides(other: Path, tmp_path: Path) -> None:
    packed = pack_set(tmp_path) / "train"
    config = config_of(packed, "pairs", a="identity<3", b="identity>=3")
    with pytest.raises(UserError, match=r"data\.train=.*has no label `age`, only identity"):
        plan.check_data(config)
    config = config_of(other, "pairs", train_b=str(packed))
    with pytest.raises(UserError, match=r"data\.train_b=.*has no label `breed`, only identity"):
        plan.check_data(config)


def test_a_task_that_takes_pairs_says_how_to_give_them(folder: Path) -> None:
    config = config_of(folder, "pairs")
    single = dataclasses.replace(config, data=Data(train=str(folder)))
    with pytest.raises(
        UserError, match=r"task=pairs takes pairs of images: use data\.order=unpaired data\.a="
    ):
        check(single)
    check(dataclasses.replace(config, data=Data(train=str(folder), halves=True)))


def test_a_fit_that_verification_does_not_show_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.fit=contain is not what .* show, .*: use data\.fit=cover"):
        check(Config(data=Data(order="groups", fit="contain"), task=dict(TASK)))


def test_a_share_is_a_multiple_of_what_ops_keep_together(folder: Path) -> None:
    config = config_of(folder, "mosaic")
    check(config)
    with pytest.raises(UserError, match=r"batch=18 is not divisible by 1 ranks x 4 images.*: use 16 or 20"):
        check(dataclasses.replace(config, batch=18))
    with pytest.raises(UserError, match=r"micro_batch=6 is not divisible by 4 images .*: use 4 or 8"):
        check(dataclasses.replace(config, micro_batch=6))
    check(dataclasses.replace(config_of(folder, "own"), batch=18))


def test_the_view_and_the_sides_are_in_the_identity(folder: Path) -> None:
    config = config_of(folder, "pairs")
    others = [config_of(folder, "pairs", **keys) for keys in ({"fit": "stretch"}, {"b": "breed>=1"})]
    assert len({identity(each) for each in (config, *others)}) == 3


def test_a_resumed_run_keeps_its_set_of_b(tmp_path: Path, folder: Path, other: Path) -> None:
    run = RunDir(run_of(tmp_path / "run", folder, "pairs"))
    config = run.config()
    write_json(run.data_file, set_digests.digests(config))
    set_digests.check_digests(run, config)
    changed = dataclasses.replace(config, data=dataclasses.replace(config.data, train_b=str(other)))
    with pytest.raises(UserError, match=r"data\.train_b=.* run run began without one"):
        set_digests.check_digests(run, changed)


def test_ops_see_the_share_of_a_rank_before_it_is_cut(tmp_path: Path, folder: Path) -> None:
    with contextlib.closing(Trainer(RunDir(run_of(tmp_path / "run", folder, "own")), Comm())) as trainer:
        trainer.step()
        batch = trainer.batch
    assert batch.images["image"].shape == (16, 3, 24, 24)
    assert batch.images["parts"].shape == (16, 1, 24, 24)
    assert batch.ids.shape == (16, 4)
    assert batch.placed is None
    assert torch.is_floating_point(batch.images["image"])


def test_thumbnails_have_the_labels_that_are_one_number(folder: Path) -> None:
    shown = (torch.zeros(2, 3, 4, 4), torch.tensor([3, 1]))
    scenes = ShardSet.open(folder)
    labels = labels_of(shown, scenes, ("breed", "boxes", "corners", "parts"))
    assert list(labels) == ["breed"]
    np.testing.assert_array_equal(labels["breed"], scenes.labels["breed"][[3, 1]])
    assert labels_of(None, scenes, ("breed",)) == {}
