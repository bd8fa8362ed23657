"""What a plan refuses, typed at `rostro submit`: one line with a remedy, an exit code, and no run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.cli import main
from tests.support import tiny
from tests.support.sets import pack_set

YAML = ["batch: 16", "images: 288", "data: {size: 32, backend: host}", "task: {name: growing}"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


@pytest.fixture
def words(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.chdir(tmp_path)
    with tiny.with_yaml(tmp_path / "conf", "growing", *YAML):
        yield ["submit", "task=growing", "cluster=local", f"data.train={shards / 'train'}"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["engine=ddp"],
            "engine=ddp: task=growing does not run under it: use engine=flat",
        ),
        (["engine=flat", "procs=3"], "stage at clock 0: batch=32 is not divisible by 3 ranks: use 30 or 33"),
        (["engine=flat", "images=200"], "stage at clock 192: fade=64 is not in [0, 8]: use 8 or less"),
        (["engine=flat", "images=192"], "stage at clock 192 is not below images=192: use images=208 or more"),
        (
            ["engine=flat", "batch=40"],
            "is 96 images long, which are no whole batches of 80: use 80 or 160",
        ),
        (
            ["engine=flat", "players.H.optim.lr=1"],
            "unknown key players.H.optim.lr in players.H.optim.lr=1: ",
        ),
        (
            ["engine=flat", "players.D.optim.lr=-1"],
            "players.D.optim.lr=-1.0 is not positive: use a number",
        ),
        (["engine=flat", "init.run=nowhere"], "nowhere"),
    ],
)
def test_a_plan_is_held_at_submit(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([*words, *more, "name=bad", "prepare=true"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_a_growing_run_names_every_stage_and_player(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "engine=flat", "players.D.optim.lr=0.002", "dry_run=true"]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["pixels", "images", "until", "fade", "batch", "a", "rank"] in rows
    assert ["8", "96", "96", "32", "32"] in rows
    assert ["32", "96", "288", "64", "16", "4", "x", "4"] in rows
    assert ["run", "288"] in rows
    out = " ".join(said.split())
    assert "levels 3, from 8 to 32 pixels: the table below" in out
    assert "the optimizers forget their moments where a level begins rates that are missing" in out
    assert "288 images = 15 updates" in out
    assert "player G adamw, lr 0.001" in out
    assert "player D adamw, lr 0.002" in out
