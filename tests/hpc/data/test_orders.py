"""The order that a config selects: what is refused, what a loader draws, a run on a part of its set."""

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from data_shards.sampling.mixed import MixedOrder
from data_shards.sampling.weighted import BalancedOrder, WeightedOrder
from data_shards.shard_format import shard_set
from hpc import train
from hpc.config import data_order
from hpc.config.check import check
from hpc.config.identity import identity
from hpc.config.plan import Plan
from hpc.config.schema import Config, Data
from hpc.data import loaders, orders
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import Stage
from hpc.tasks import siamese_plan
from launch.options.compose import composed
from launch.start import data as plan
from tests.support.labelled_set import labelled
from tests.support.runs import TASK, data_of, make_run
from tests.support.sets import pack_set
from tests.support.small_set import build, jpeg, photo

MIX = "identity<2:0.25; identity>=2:0.75"
ORDERS = [
    (Data(order="weighted", weights="weight"), WeightedOrder),
    (Data(order="balanced", balance="identity", rows="identity!=1"), BalancedOrder),
    (Data(order="mixed", mix=MIX), MixedOrder),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    sizes = [5, 7, 3, 9]
    blobs = [jpeg(photo(number, 40, 40)) for number in range(sum(sizes))]
    return build(tmp_path_factory.mktemp("set"), blobs, sizes)


@pytest.fixture
def any_order(monkeypatch):
    """Lets the siamese task, whose own check asks for groups, be read with any order."""
    monkeypatch.setattr(siamese_plan, "check", lambda config, sets: None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            Data(order="weighted"),
            r"data\.order=weighted needs data\.weights: type for example data\.weights=",
        ),
        (
            Data(order="balanced"),
            r"data\.order=balanced needs data\.balance: type for example data\.balance=",
        ),
        (Data(order="mixed"), r"data\.order=mixed needs data\.mix: type for example data\.mix='race"),
        (Data(weights="quality"), r"data\.weights=quality belongs to data\.order=weighted, not to .*plain"),
        (Data(order="mixed", mix=MIX, rows="race==0"), r"data\.rows=race==0: the parts of data\.mix choose"),
        (Data(order="weighted", weights="w", stream=True), r"data\.order=weighted needs the set's index"),
        (Data(rows="race==0", stream=True), r"data\.rows=race==0 needs the set's index"),
        (
            Data(order="unpaired"),
            r"data\.order=unpaired draws A and B from the same samples: type .*train_b",
        ),
        (Data(a="race==0"), r"data\.a=race==0 belongs to data\.order=unpaired, not to data\.order=plain"),
        (Data(train_b="/b", order="groups"), r"data\.train_b=/b belongs to data\.order=unpaired"),
        (Data(order="unpaired", a="r==0", rows="r>0"), r"data\.rows=r>0: A and B choose rows .* data\.a and"),
        (Data(order="unpaired", a="r==0"), r"data\.order=unpaired gives pairs of images, task=siamese"),
        (
            Data(halves=True),
            r"data\.halves=true gives pairs of images, task=siamese takes single ones",
        ),
        (Data(halves=True, members=4), r"data\.halves=true makes A and B .* data\.members=4 takes several"),
        (Data(halves=True, order="unpaired", b="r>0"), r"data\.halves=true .* data\.order=unpaired takes"),
        (
            Data(order="groups", members=4),
            r"data\.members=4 does not go with data\.order=groups, .*: use data\.members=1",
        ),
        (Data(members=0), r"data\.members=0 is not positive: use 1 or more, for example data\.members=1"),
        (Data(members=4, stream=True), r"data\.members=4 needs the set's index, data\.stream=true reads"),
        (Data(fit="fill"), r"data\.fit=fill is not known: use cover or contain or stretch"),
    ],
)
@pytest.mark.usefixtures("any_order")
def test_keys_that_do_not_go_together_are_refused_before_a_set_is_opened(data, message):
    with pytest.raises(UserError, match=message):
        check(Config(data=data, task=dict(TASK)))


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ("race==0", r"data\.mix: race==0 is not EXPRESSION:SHARE: use for example data\.mix='race"),
        ("identity==0:half", r"is not EXPRESSION:SHARE"),
        ("identity==0:inf", r"is not EXPRESSION:SHARE"),
        ("identity==0:0.3333; set:0.6667", r"shares are whole thousandths: use 0\.333 or another"),
        ("identity==0:0.5; set:0.6", r"data\.mix: the shares 0\.5, 0\.6 are not .* sum to 1"),
        (" ; ", r"data\.mix: the shares none are not positive"),
        ("identity==0:1.2; set:-0.2", r"the shares 1\.2, -0\.2 are not positive"),
        ("identity==9:0.5; set:0.5", r"data\.mix=identity==9 matches none of the 24 rows"),
        (
            "race==0:0.5; set:0.5",
            r"data\.mix=race==0: .* has no label `race`: use one of identity, weight",
        ),
    ],
)
def test_mixes_that_the_set_cannot_give_are_refused(shards, mix, message):
    with pytest.raises(UserError, match=message):
        orders.build(Config(data=Data(order="mixed", mix=mix)), [shards])


@pytest.mark.parametrize(("data", "kind"), ORDERS)
@pytest.mark.usefixtures("any_order")
def test_a_loader_draws_by_the_order_of_the_config_at_any_world_size(shards, data, kind):
    data = dataclasses.replace(data, backend="host", threads=1)
    config = Config(seed=3, batch=12, data=data, task=dict(TASK))
    check(config)
    job, found = SimpleNamespace(plan=Plan("any", roles={"train": ("identity", "weight")})), {}
    for world in (1, 2):
        parts = []
        for rank in range(world):
            comm = Comm(rank, world, rank, torch.device("cpu"))
            loader = loaders.train_loader(config, job, {"train": shards}, Stage(0, 12, 16), comm)
            loader.start(120)
            parts.append([loader.next() for _ in range(3)])
            loader.close()
        found[world] = [
            torch.cat([batch.ids[:, 0] for batch in batches]) for batches in zip(*parts, strict=True)
        ]
    order = orders.build(config, [shards])
    assert isinstance(order, kind)
    for ids, again, clock in zip(found[1], found[2], (120, 132, 144), strict=True):
        assert torch.equal(ids, again)
        np.testing.assert_array_equal(ids, order.slots(clock, 12).ids[:, 0])


def test_a_mix_draws_its_shares(shards):
    order = orders.build(Config(data=ORDERS[2][0]), [shards])
    ids = order.slots(0, 1_000).ids[:, 0]
    assert (shards.labels["identity"][ids] < 2).sum() == 250


def test_keys_are_typed_as_they_are_meant():
    part = "(age>=18 or age<3) and race!=2"
    data = composed(["task=siamese", f"data.mix={MIX}", f"data.rows={part}"]).data
    assert (data.mix, data.rows) == (MIX, part)


def test_plan_and_log_say_which_order_is_active():
    assert [data_order.describe(data) for data, _ in ORDERS] == [
        "weighted by weight",
        "balanced over identity, rows identity!=1",
        f"mixed {MIX}",
    ]
    assert data_order.describe(Data(order="groups", group=2)) == "groups of 2"


def test_an_older_run_keeps_its_identity_and_a_part_of_a_set_is_another_run():
    config = Config(data=Data(order="groups"), task=dict(TASK))
    assert identity(config) == "ac0065058c2c2ea1"
    part = dataclasses.replace(config, data=dataclasses.replace(config.data, rows="identity<3"))
    assert identity(part) != identity(config)


def test_a_siamese_run_trains_on_a_part_of_its_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack_set(tmp_path)
    data = data_of(packed, rows="identity>=3 and identity!=7")
    config = RunDir(make_run(tmp_path / "run", packed, data=data, images=160)).config()
    sets = plan.check_data(config)
    assert orders.epoch_images(config, [sets["train"]]) == 55  # 11 identities of 5 images
    with pytest.raises(UserError, match=r"data\.rows=identity>99 matches none of the 75 rows"):
        plan.check_data(dataclasses.replace(config, data=dataclasses.replace(data, rows="identity>99")))
    ids = orders.build(config, [sets["train"]]).slots(0, 160).ids[:, 0]
    assert set(sets["train"].labels["identity"][ids].tolist()) == {3, 4, 5, 6, *range(8, 15)}
    assert capsys.readouterr().err == ""
    with contextlib.closing(train.Trainer(RunDir(tmp_path / "run"), Comm())) as trainer:
        assert trainer.fit() == "finished"
    log = capsys.readouterr()
    assert "order groups of 4, rows identity>=3 and identity!=7, backend host" in log.out + log.err


def test_submit_warns_of_a_part_that_is_slow_to_read(monkeypatch, tmp_path, capsys):
    race = (np.arange(4_000) % 100 == 7).astype(np.int32)
    scattered = labelled([4_000], 20, {"race": race})
    monkeypatch.setattr(shard_set.ShardSet, "open", lambda folder, fields: scattered)
    monkeypatch.setattr(siamese_plan, "check", lambda config, sets: None)
    (tmp_path / "manifest.json").touch()
    data = Data(train=str(tmp_path), order="groups", rows="race==1")
    plan.check_data(Config(data=data, task=dict(TASK)))
    warning = capsys.readouterr().err
    assert warning.startswith("warning: data.rows=race==1: 40 of 4,000 rows, in 20 of 20 shards")
