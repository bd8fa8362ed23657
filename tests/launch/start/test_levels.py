"""The table of a run that grows: images, batch, memory, and time where a rate is known, level by level."""

import dataclasses
import json
from pathlib import Path

import pytest

from hpc.config.parse import save_config
from hpc.config.plan import plan_of
from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir
from launch.cli import main
from launch.options.compose import composed
from launch.start import forecast, levels, table
from launch.start.plan import RunPlan
from tests.hpc.tasks.test_gan import batch_of, job_of
from tests.support.counts import kept_bytes


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_has_gpu", lambda config: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})


def real(tmp_path: Path, *words: str, cluster: str = "slurm") -> Config:
    """The real StyleGAN on eight GPUs."""
    config = composed(["task=stylegan", f"runs={tmp_path}", "procs=8", "gpus=8", "hours=24", *words])
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, name=cluster))


def shown(config: Config) -> list[dict[str, str]]:
    """The rows of the table by title, without fill."""
    plan = RunPlan(config)
    lines = levels.lines(plan, [sum(table.memory(plan, [stage]).values()) for stage in plan.sizes.stages])
    ends, at = {}, 0
    for title in [each for each in levels.TITLES if each in lines[0]]:
        at = lines[0].index(title, at) + len(title)
        ends[title] = at
    rows = []
    for line in lines[2:]:
        starts = [0, *ends.values()]
        rows.append({t: line[low:high].strip() for (t, high), low in zip(ends.items(), starts, strict=False)})
    return rows


def leave(config: Config, name: str, rates: dict[int, float]) -> None:
    """A run that has logged a rate up to each of these clocks."""
    run = RunDir(Path(config.runs) / name)
    run.path.mkdir(parents=True)
    save_config(dataclasses.replace(config, name=name), run.config_file)
    points = [{"clock": clock, "group": "perf", "images_per_s": rate} for clock, rate in rates.items()]
    run.metrics_file.write_text("".join(json.dumps(point) + "\n" for point in points))


def test_the_levels_of_the_real_job(tmp_path: Path) -> None:
    *rows, whole = shown(real(tmp_path))
    assert [row["pixels"] for row in rows] == ["8", "16", "32", "64", "128", "256", "512", "1024"]
    assert [row["batch"] for row in rows] == ["256", "256", "128", "64", "32", "32", "32", "32"]
    assert [row["a rank"] for row in rows] == ["32", "32", "16", "8", "4", "4", "4", "4"]
    assert (rows[0]["images"], rows[0]["fade"]) == ("600,064", "")
    assert {row["fade"] for row in rows[1:]} == {"600,000"}
    counts = [int(row["images"].replace(",", "")) for row in rows]
    assert sum(counts) == 25_000_000
    assert (whole["pixels"], whole["images"]) == ("run", "25,000,000")
    memory = [int(row["MB"].replace(",", "")) for row in rows]
    assert memory[-1] == max(memory) == int(whole["MB"].replace(",", ""))
    assert all("time" not in row for row in rows)  # GPUs differ: nothing is known of them


def test_rates_and_allocations_are_those_of_a_run_that_reached_the_level(tmp_path: Path) -> None:
    config = real(tmp_path)
    clocks = [stage.clock for stage in plan_of(config.task).stages(config)]
    first = {100_000: 900.0, 200_000: 1000.0, 300_000: 1100.0, clocks[1] + 10: 5.0, clocks[1] + 50_000: 500.0}
    leave(config, "first", first)
    leave(dataclasses.replace(config, procs=4), "other", {100_000: 7.0})
    *rows, whole = shown(config)
    assert [row["images/s"] for row in rows] == ["1,000", "500", *[""] * 6]
    assert rows[0]["time"] == "10m00s"
    useful = 24 * 3600 - config.cluster.warning
    assert rows[1]["allocations"] == f"{float(rows[1]['images'].replace(',', '')) / 500 / useful:.2f}"
    assert (whole["time"], whole["allocations"]) == ("", "")
    assert levels.notes(RunPlan(config))[-2:] == [
        "rates: as run first did",
        "rates that are missing are not known here: a run that reaches a level measures it",
    ]
    leave(config, "second", {clock + each: 100.0 for clock in clocks for each in (1, 50_000)})
    *rows, whole = shown(config)
    assert [row["images/s"] for row in rows] == ["100"] * 8  # of the newest run
    assert whole["time"] == "2d21h"
    assert whole["allocations"] == f"{250_000 / useful:.2f}"
    assert forecast.rate(RunPlan(config)).images_per_s == pytest.approx(100)


def test_cores_have_typical_rates_that_fall_with_the_level(tmp_path: Path) -> None:
    config = real(tmp_path, "gpus=0", "procs=2", "task.width=32", cluster="local")
    *rows, whole = shown(config)
    rates = [forecast.stage_rates(RunPlan(config))[number].images_per_s for number in range(8)]
    assert rates == sorted(rates, reverse=True)
    assert all(row["time"] and "allocations" not in row for row in (*rows, whole))


def test_damaged_metrics_of_another_run_are_passed_over(tmp_path: Path) -> None:
    config = real(tmp_path)
    leave(config, "torn", {100_000: 900.0})
    (tmp_path / "torn" / "metrics.jsonl").write_text('{"clock": 10, "images_per_s": ')
    assert forecast.stage_rates(RunPlan(config)) == [None] * 8


def test_the_dry_run_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["submit", "task=stylegan", "cluster=local", "dry_run=true", f"data.train={tmp_path}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "levels 8, from 8 to 1024 pixels: the table below" in " ".join(said.split())
    assert "\npixels" in said
    assert "\n  1024  " in said
    assert "the optimizers forget their moments where a level begins" in said


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("dcgan", ()),
        ("dcgan", ("task.penalty=r1", "engine=flat")),
        ("progan", ()),
        ("stylegan", ()),
        ("stylegan", ("task.penalty=wgan", "task.loss=wgan")),
    ],
)
def test_an_image_keeps_as_much_as_is_said(job: str, words: tuple[str, ...]) -> None:
    """The phase that keeps most, within a quarter; measured as what further images keep besides."""
    task, nets = job_of(
        job,
        "data.size=32",
        "task.width=16",
        "task.batches=[16,16,16,16]",
        "task.rates=[1.0,1.0,1.0,1.0]",
        "images=400",
        *words,
    )
    clock = 0 if job == "dcgan" else 380
    level = () if job == "dcgan" else task.level(clock)
    assert level in ((), (3, 1.0))

    def kept(phase: object, count: int) -> int:
        for name, net in nets.items():
            net.requires_grad_(name == phase.player)
        return kept_bytes(lambda: task.loss(phase, nets, batch_of(task, clock, n=count), clock))

    most = max((kept(phase, 16) - kept(phase, 8)) / 8 for phase in task.phases(clock))
    assert plan_of(task.config.task).counts(task.config)[1] == pytest.approx(most, rel=0.25)
