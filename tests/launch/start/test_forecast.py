"""How long a run will take: by runs like it, else by what is typical, and a warning for more than a day."""

import dataclasses
from pathlib import Path

import pytest

from hpc.config.check import check
from hpc.config.parse import save_config
from hpc.config.schema import Cluster, Config, Init
from hpc.runs.run_dir import RunDir
from launch.cli import main
from launch.options.compose import composed
from launch.start import forecast, table
from launch.start.plan import RunPlan


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.setattr(forecast, "_has_gpu", lambda config: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    found = composed(["task=siamese", "procs=2", f"runs={tmp_path / 'runs'}", "data.size=112"])
    return dataclasses.replace(found, cluster=Cluster(name="local"))


def leave(config: Config, name: str, rate: object) -> None:
    run = RunDir(Path(config.runs) / name)
    run.path.mkdir(parents=True)
    save_config(dataclasses.replace(config, name=name, images=7, seed=9), run.config_file)
    run.write_status(state="finished", rate=rate)


def test_what_is_typical_of_cpu_cores(config):
    found = forecast.rate(RunPlan(config))
    assert found == forecast.Rate(40.0, "typical of 2 CPU cores")
    half = dataclasses.replace(config, data=dataclasses.replace(config.data, size=56))
    assert forecast.rate(RunPlan(half)).images_per_s == 160.0
    slurm = dataclasses.replace(config, nodes=4, cluster=Cluster(name="slurm", cpus=3))
    assert forecast.rate(RunPlan(slurm)) == forecast.Rate(480.0, "typical of 24 CPU cores")
    assert forecast.rate(RunPlan(dataclasses.replace(slurm, gpus=1))) is None


def test_a_run_of_the_same_kind_says_it_better(config):
    leave(config, "slow", 5.0)
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, size=64))
    leave(other, "other", 900.0)
    leave(config, "unknown", 0)
    leave(config, "damaged", "fast")
    (Path(config.runs) / "torn").mkdir()
    (Path(config.runs) / "torn" / "config.yaml").write_text("a: [")
    assert forecast.rate(RunPlan(config)) == forecast.Rate(5.0, "as run slow did")


@pytest.mark.parametrize(("images", "warned"), [(3_000_000, False), (4_000_000, True)])
def test_more_than_a_day_is_warned_of(config, images, warned):
    long = dataclasses.replace(config, images=images)
    line = forecast.warning(long, forecast.rate(RunPlan(long)))
    assert bool(line) == warned
    if warned:
        assert line == (
            "images=4_000_000 takes about 1d03h at 40 images/s, typical of 2 CPU cores: that is more than a "
            "day, which is enough for about images=3_000_000; a smaller data.size= and more ranks or GPUs "
            "are faster"
        )
        check(dataclasses.replace(long, images=3_000_000))


def test_the_plan_says_time_and_epochs_beside_images(config):
    class Shards(list):
        identity_start, shard_start = range(0, 6_001, 200), [0, 6_000]

    said = dict(table.rows(RunPlan(config, sets={"train": Shards(range(6_000))})))
    assert said["run"] == "300,000 images = 4,688 updates, 50.0 epochs"
    assert said["time"] == "about 2h05m at 40 images/s, typical of 2 CPU cores"
    assert dict(table.rows(RunPlan(config)))["run"] == "300,000 images = 4,688 updates"


def test_the_dry_run_warns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "_has_gpu", lambda config: False)
    monkeypatch.chdir(tmp_path)
    words = ["task=siamese", "cluster=local", "dry_run=true", f"data.train={tmp_path}"]
    assert main(["submit", *words, "images=1_000_000_000"]) == 0
    assert "warning: images=1_000_000_000 takes about" in capsys.readouterr().err
    assert main(["submit", *words, "images=6_400"]) == 0
    assert "takes about" not in capsys.readouterr().err


def test_the_plan_says_with_whose_weights_a_run_begins(config):
    assert "weights" not in dict(table.rows(RunPlan(config)))
    init = Init(run="runs/a", skip=["net.head.*"], freeze=["net.trunk.*"])
    said = dict(table.rows(RunPlan(dataclasses.replace(config, init=init))))
    assert said["weights"] == (
        "begin with those of runs/a, checkpoint best, but for net.head.*; never trained: net.trunk.*"
    )
