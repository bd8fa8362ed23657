"""`rostro resume` of runs whose checkpoints or data are gone: one line, or `from=0`."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from data_shards.errors import UserError
from hpc.checkpoints import store
from hpc.checkpoints.manager import CheckpointManager
from hpc.config.parse import load_config, save_config, update_config
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.runs import requeue, restart
from hpc.runs.run_dir import RunDir
from launch.cli import main
from launch.commands.resume import changed_config
from launch.start import start
from tests.support.judged import judged_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=3, holdout=0.5)


@pytest.fixture
def run(tmp_path, shards, monkeypatch) -> RunDir:
    """A run that was killed at 330 of 640 images, with checkpoints and curves. To start it starts nothing."""
    path = judged_run(tmp_path / "runs" / "faces", shards)
    made = RunDir(path)
    (path / "metrics.jsonl").write_text('{"clock": 320}\n')
    (path / "events.out.tfevents.0000000001.host.1").write_text("curves")
    (path / "threshold.json").write_text("{}")
    restart.note_saved(made, 320)
    made.write_status(state="stopped", clock=330, images=640)
    monkeypatch.setattr(start, "start_run", lambda run, config, before: run.ownership.release() or 0)
    return made


def lose(run: RunDir) -> None:
    for path in store.listing(run.path):
        shutil.rmtree(path)


def test_a_run_whose_checkpoints_are_gone_is_not_started_from_0(run, capsys):
    assert main(["resume", str(run.path)]) == 0
    lose(run)
    (run.checkpoints / ".damaged-000000000320").mkdir()
    assert main(["resume", str(run.path)]) == 2
    error = capsys.readouterr().err
    assert "had checkpoints, the newest of clock 320, and none is left; 1 damaged ones are in" in error
    assert "`rostro resume faces from=0`" in error
    assert error.count("\n") == 1
    assert (run.path / "metrics.jsonl").exists()


def test_nor_by_its_ranks(run):
    """As torchrun and a requeue start them."""
    manager = CheckpointManager.__new__(CheckpointManager)
    manager.run, manager.comm = run, Comm()
    assert manager.find().clock == 320
    for path in store.listing(run.path):
        (path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"none is left; 2 damaged ones"):
        manager.find()


def test_from_0_starts_again_and_keeps_what_there_was(run, capsys):
    lose(run)
    for number in (1, 2):
        assert main(["resume", str(run.path), "from=0"]) == 0
        kept = run.path / f"before-{number}"
        assert f"starts again from 0; what it had made is in {kept}" in capsys.readouterr().out
    first = run.path / "before-1"
    assert (first / "metrics.jsonl").read_text() == '{"clock": 320}\n'
    assert sorted(path.name for path in first.iterdir()) == [
        "checkpoints",
        "events.out.tfevents.0000000001.host.1",
        "metrics.jsonl",
        "saved.json",
        "threshold.json",
    ]
    assert run.status()["clock"] == 0
    assert requeue.newest_clock(run) < 0
    assert restart.gone(run) == ""
    assert main(["resume", str(run.path)]) == 0


def test_only_0_is_a_place_to_start_from(run, capsys):
    assert main(["resume", str(run.path), "from=160"]) == 2
    assert "or type from=0 to start again" in capsys.readouterr().err
    assert not (run.path / "before-1").exists()


def test_a_run_killed_before_its_first_save_begins_again(run):
    lose(run)
    run.saved_file.unlink()
    run.write_status(clock=90)  # save.every=96
    assert restart.gone(run) == ""
    run.write_status(clock=112)  # by a tick of the step that was to be saved, or before an asynchronous save
    assert restart.gone(run) == ""
    run.write_status(clock=192)  # of an earlier version, which left no saved.json
    assert "had checkpoints, the newest of clock 96" in restart.gone(run)
    run.saved_file.write_text("{")
    assert "had checkpoints" in restart.gone(run)


def test_a_moved_set_brings_its_sibling(run, shards, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(shards, tmp_path / "old")
    text = run.config_file.read_text().replace(str(shards), str(tmp_path / "old"))
    run.config_file.write_text(text)
    (tmp_path / "old").rename(moved)
    assert main(["resume", str(run.path)]) == 2
    assert "data.train=" in capsys.readouterr().err
    assert main(["resume", str(run.path), f"data.train={moved / 'train'}"]) == 0
    assert run.config().data.eval == str(moved / "eval")
    (moved / "eval").rename(tmp_path / "elsewhere")
    (moved / "train").rename(tmp_path / "other")
    with pytest.raises(
        UserError, match=r"data.eval=.* is gone too, .*type data.train=FOLDER data.eval=FOLDER"
    ):
        changed_config(run, run.config(), [f"data.train={tmp_path / 'other'}"])
    words = [f"data.train={tmp_path / 'other'}", f"data.eval={tmp_path / 'elsewhere'}"]
    assert main(["resume", str(run.path), *words]) == 0
    assert json.loads(run.status_file.read_text())["state"]


def test_a_resume_adds_no_key_that_older_code_would_refuse(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(Config(task={"name": "siamese"}), path)
    values = yaml.safe_load(path.read_text())
    del values["data"]["val"]
    path.write_text(yaml.safe_dump(values))
    update_config(dataclasses.replace(load_config(path), hang_timeout=7), path)
    assert yaml.safe_load(path.read_text()) == values | {"hang_timeout": 7}
