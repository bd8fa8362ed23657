"""`rostro status`: which runs are listed, in which order and width, and what tells them apart."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc.config.parse import save_config
from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir
from launch.cli import main
from launch.terminal import Column, table
from tests.support.command import environment

FIGURES = {"eer": 0.1234, "auc": 0.9456, "accuracy": 0.9012, "tar@1%": 0.5123}


def make(runs: Path, name: str, *, age: int = 0, loss: str = "bce", seed: int = 0, **status: Any) -> RunDir:
    run = RunDir(runs / name)
    run.path.mkdir(parents=True)
    task = {"name": "siamese", "loss": loss}
    save_config(Config(images=300_000, seed=seed, task=task, name=name), run.config_file)
    os.utime(run.config_file, (1e9 - age, 1e9 - age))
    run.write_status(**({"state": "stopped", "clock": 123_456, "loss": 0.345, "metrics": FIGURES} | status))
    return run


def shown(capsys, *words: str) -> list[str]:
    assert main(["status", *words]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    age = 9
    for loss in ("contrastive", "supcon"):
        for seed in (0, 1):
            name = f"siamese-loss={loss}-seed={seed}"
            make(tmp_path / "runs", name, age=(age := age - 1), loss=loss, seed=seed, rate=1234.5)
    return tmp_path / "runs"


def test_the_newest_run_is_last(runs, capsys):
    make(runs, "aaa", age=-5)
    names = [line.split()[0] for line in shown(capsys, f"runs={runs}")[2:]]
    assert names == [
        *(f"siamese-loss={loss}-seed={seed}" for loss in ("contrastive", "supcon") for seed in (0, 1)),
        "aaa",
    ]
    rows = json.loads(shown(capsys, f"runs={runs}", "json=true")[0])
    assert [row["run"] for row in rows] == names


def test_the_last_ones_and_those_of_a_name(runs, capsys):
    assert [row["run"] for row in json.loads(shown(capsys, f"runs={runs}", "last=1", "json=true")[0])] == [
        "siamese-loss=supcon-seed=1"
    ]
    rows = json.loads(shown(capsys, f"runs={runs}", "name=*-seed=0", "last=9", "json=true")[0])
    assert [(row["task.loss"], row["seed"]) for row in rows] == [("contrastive", 0), ("supcon", 0)]
    assert "no run in" in shown(capsys, f"runs={runs}", "name=zz*")[0]
    assert main(["status", f"runs={runs}", "last=-1"]) == 2
    assert "last=-1 is not 0 or more: type last=0" in capsys.readouterr().err


def test_the_table_fits_100_columns_and_says_what_differs(runs, capsys):
    lines = shown(capsys, f"runs={runs}")
    assert max(map(len, lines)) <= 100
    title, _, *rows = lines
    assert [rows[place].split()[0] for place in (0, 3)] == [
        "siamese-loss=contrastive-seed=0",
        "siamese-loss=supcon-seed=1",
    ]
    at = title.index("task.loss")
    assert [row[at:].split()[:2] for row in rows] == [
        [loss, seed] for loss in ("contrastive", "supcon") for seed in "01"
    ]
    assert all("123,456 (41%)" in row and row.endswith("loss 0.345, eer 0.1234") for row in rows)
    assert len({line.index("stopped") for line in rows}) == 1


@pytest.mark.parametrize("length", [20, 34, 60, 120])
def test_names_are_never_cut(tmp_path, length, capsys):
    name = "n" * length
    make(tmp_path / "runs", name, state="running", rate=12_345.6, clock=299_999)
    make(tmp_path / "runs", "other", loss="supcon", seed=123456)
    lines = shown(capsys, f"runs={tmp_path / 'runs'}")
    assert max(map(len, lines)) <= max(100, length)
    assert sum(re.search(rf"\b{name}\b", line) is not None for line in lines) == 1


def test_one_run_shows_its_loss_and_seed_as_there_is_room(tmp_path, capsys):
    make(tmp_path / "runs", "faces", loss="supcon", seed=7)
    title, _, row = shown(capsys, f"runs={tmp_path / 'runs'}")
    assert row[title.index("task.loss") :].split()[0] == "supcon"
    assert row[: title.index("seed") + len("seed")].endswith("7")


def test_a_failure_is_told_below(tmp_path, capsys):
    make(tmp_path / "runs", "faces", state="failed", message="rank 1: out of\nmemory")
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "config.yaml").write_text("batch: [")
    lines = shown(capsys, f"runs={tmp_path / 'runs'}")
    assert "faces: rank 1: out of memory" in lines
    assert max(map(len, lines)) <= max(100, 2 + len(str(tmp_path / "runs" / "bad" / "config.yaml:")))
    (bad,) = (number for number, line in enumerate(lines) if line.startswith("bad:"))
    assert any("config.yaml" in line for line in lines[bad : bad + 2])  # a long path has the next line
    assert any(re.fullmatch(r"bad +damaged", line) for line in lines)


def test_a_reader_of_the_table_may_leave_early(runs):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "launch.cli", "status", f"runs={runs}"]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=environment(PYTHONUNBUFFERED=None)
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_table_leaves_out_what_is_spare_and_what_is_empty():
    columns = [
        Column("name", ["a", "b"]),
        Column("empty", ["", ""]),
        Column("spare", ["x" * 20, ""], spare=2),
        Column("sparer", ["y" * 20, ""], spare=3),
        Column("figures", ["loss 1, eer 2", "loss 3"]),
    ]
    assert [line.split()[0] for line in table(columns, 100)] == ["name", "-" * 63, "a", "b"]
    assert table(columns, 50)[0].split() == ["name", "spare", "figures"]
    assert table(columns, 20) == ["name  figures", "-" * 19, "a     loss 1, eer 2", "b     loss 3"]
    assert table(columns, 16)[2] == "a     loss 1"
