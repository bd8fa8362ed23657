"""A run directory of version 0.1.0, from before the code moved into rooms: every command still reads it.

`tests/support/recorded_run.tar.xz` holds such a run, stopped at 3,872 images: the small trunk on drawn faces,
two ranks; without its code and its events, and with a simple pattern in place of the weights, so that it is
small.
"""

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest

from hpc.checkpoints import store
from hpc.config.identity import identity
from hpc.config.parse import update_config
from hpc.runs.run_dir import RunDir
from launch import cli
from launch.start import set_digests, start
from tests.support.sets import pack_set

RECORDED = Path(__file__).parents[1] / "support" / "recorded_run.tar.xz"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=16, each=4, holdout=0.3, val=0.3)


@pytest.fixture
def run(tmp_path: Path, shards: Path) -> RunDir:
    """The recorded run, on a set of this machine."""
    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "recorded_run").rename(tmp_path / "old")
    run = RunDir(tmp_path / "old")
    config = run.config()
    folders = {split: str(shards / split) for split in ("train", "val", "eval")}
    config = dataclasses.replace(config, runs=str(tmp_path), data=dataclasses.replace(config.data, **folders))
    update_config(config, run.config_file)
    run.data_file.write_text(json.dumps(set_digests.digests(config)))
    return run


def test_status_and_logs(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", f"runs={run.path.parent}", "json=true"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["state"], row["clock"], row["starts"]) == ("old", "stopped", 3872, 1)
    assert row["goodput"] > 0
    assert cli.main(["logs", str(run.path), "lines=1"]) == 0
    assert "stopped by a request to stop at 3,872 images; saved" in capsys.readouterr().out


def test_resume_takes_its_checkpoint_and_its_config(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(start, "start_run", lambda *call: started.append(call) or 0)
    assert cli.main(["resume", str(run.path)]) == 0
    ((same, config, _),) = started
    saved = store.read(store.latest(run.path))
    assert (same.path, saved.clock) == (run.path, 3872)
    assert saved.meta["identity"] == identity(dataclasses.replace(config, **as_resolved(run, config)))
    assert saved.players["net"].keys() == saved.ema["net"].keys()
    assert saved.optim["net"]


def as_resolved(run: RunDir, config: object) -> dict[str, object]:
    """What `auto` became when the run began, as its identity counts it."""
    kept = run.resolved()
    backend = dataclasses.replace(config.data, backend=kept["backend"])
    return {"precision": kept["precision"], "data": backend}


def test_evaluate_verify_and_export(
    run: RunDir, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run.path), "bootstrap=0"]) == 0
    report = json.loads((run.evaluations / "pictures-eval" / "report.json").read_text())
    assert (report["checkpoint"], report["chosen_on_these_people"]) == (3872, False)
    pictures = sorted((shards.parent / "pictures").glob("person000/*.jpg"))[:2]
    capsys.readouterr()
    assert cli.main(["verify", str(run.path), *map(str, pictures), "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == 3872
    assert cli.main(["export", str(run.path), f"out={tmp_path / 'net'}", "onnx=false"]) == 0
    assert (tmp_path / "net" / "model.safetensors").stat().st_size > 400_000
