"""Lists of rows of a run, `data.rows=@FILE`: named by their content, read by its ranks."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.sampling.row_file import write_list
from data_shards.shard_format.shard_set import ShardSet
from hpc import train
from hpc.config import identity
from hpc.config.check import check
from hpc.config.schema import Config
from hpc.data import orders
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.tasks import siamese_plan
from launch.options.compose import composed
from launch.start import data
from tests.support.runs import TASK, data_of, make_run
from tests.support.sets import pack_set

ROWS = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=16, each=5, holdout=0.25)


@pytest.fixture
def rows(shards, tmp_path) -> Path:
    return listed(shards, tmp_path / "rows.csv", ROWS)


def listed(shards: Path, path: Path, rows: list[int], weights: list[float] | None = None) -> Path:
    digest = ShardSet.open(shards / "train").digest
    write_list(path, digest, rows, weights or [1.0] * len(rows), notes=[()] * len(rows))
    return path


def config_of(shards: Path, *words: str) -> Config:
    config = composed(["task=siamese", f"data.train={shards / 'train'}", "data.size=32", *words])
    check(config)
    return data.locate_data(config)


def test_the_identity_of_a_run_holds_the_content_of_a_list_and_not_its_place(shards, rows, tmp_path):
    config = config_of(shards, f"data.rows=@{rows}")
    assert config.data.rows.startswith(f"@{rows}#")
    assert data.locate_data(config) == config
    (tmp_path / "moved").mkdir()
    moved = config_of(shards, f"data.rows=@{listed(shards, tmp_path / 'moved' / 'r.csv', ROWS)}")
    other = config_of(shards, f"data.rows=@{listed(shards, tmp_path / 'other.csv', ROWS[5:])}")
    assert identity.identity(moved) == identity.identity(config) != identity.identity(other)
    assert identity.changed(config, moved) == []
    assert len(identity.changed(config, other)) == 1
    rows.write_text(rows.read_text() + "15,1\n")
    with pytest.raises(UserError, match="is not the list that this run began with: restore it"):
        data.locate_data(config)


def test_a_run_trains_on_the_listed_rows(shards, rows, tmp_path, capsys):
    located = data.locate_data(Config(data=data_of(shards, rows=f"@{rows}")))
    config = RunDir(make_run(tmp_path / "run", shards, data=located.data, images=160)).config()
    sets = data.check_data(config)
    assert orders.epoch_images(config, [sets["train"]]) == len(ROWS)
    ids = orders.build(config, [sets["train"]]).slots(0, 160).ids[:, 0]
    assert set(ids.tolist()) == set(ROWS)
    with contextlib.closing(train.Trainer(RunDir(tmp_path / "run"), Comm())) as trainer:
        assert trainer.fit() == "finished"
    log = capsys.readouterr()
    assert f"order groups of 4, rows @{rows}, backend host" in log.out + log.err


def test_listed_weights_say_how_often_rows_come(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(siamese_plan, "check", lambda config, sets: None)
    file = listed(shards, tmp_path / "weights.csv", [0, 7], [1.0, 0.25])
    config = data.locate_data(
        Config(data=data_of(shards, order="weighted", weights=f"@{file}"), task=dict(TASK))
    )
    sets = data.check_data(config)
    ids = orders.build(config, [sets["train"]]).slots(0, 500).ids[:, 0]
    assert np.bincount(ids).tolist() == [400, 0, 0, 0, 0, 0, 0, 100]


def test_a_list_that_a_run_cannot_read_is_one_line(shards, rows, tmp_path):
    with pytest.raises(UserError, match=r"data\.rows=@.*none\.csv does not exist"):
        config_of(shards, f"data.rows=@{tmp_path / 'none.csv'}")
    other = dataclasses.replace(data_of(shards), train=str(shards / "eval"), rows=f"@{rows}")
    with pytest.raises(UserError, match="lists rows of another set"):
        data.check_data(data.locate_data(Config(data=other, task=dict(TASK))))
    with pytest.raises(
        UserError, match=r"needs the set's index, data\.stream=true reads shards as they come"
    ):
        config_of(shards, f"data.rows=@{rows}", "data.stream=true")
