"""Resume is proved by equality: every kind of task, by the command that users have."""

from pathlib import Path

import pytest

from hpc.checkpoints import manifest
from launch.audit.compare import differences
from launch.commands import audit_resume
from launch.options.conf import plan_of_task

TASKS = ("siamese", "face_attributes")  # one of each kind; tests/launch/test_walk.py audits every yaml


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_equals_a_straight_one(task: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [f"task={task}", "procs=2", "engine=ddp", "backend=dali"]
    assert audit_resume.main(words) == 0
    out = capfd.readouterr().out
    assert "equal bit for bit" in out
    for part in plan_of_task(task).controls or ():
        assert f"control, {part} state left out: noticed" in out
    assert "same samples" in out


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_flat_and_host_too_on_one_rank(task: str) -> None:
    words = [
        f"task={task}",
        "procs=1",
        "engine=flat",
        "backend=host",
        "controls=false",
        "elastic=false",
        "seed=1",
    ]
    assert audit_resume.main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_stage_of_zero(task: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [f"task={task}", "procs=2", "engine=deepspeed", "stage=1,2,3", "backend=host", "kills=1"]
    assert audit_resume.main([*words, "controls=false", "elastic=false"]) == 0
    assert capfd.readouterr().out.count("equal bit for bit") == 3


def test_the_comparison_names_what_differs(tmp_path: Path) -> None:
    import json

    import numpy as np
    from safetensors.numpy import save_file

    runs = []
    for number in range(2):
        place = tmp_path / str(number) / "checkpoints" / "000000000064"
        place.mkdir(parents=True)
        save_file(
            {"w": np.ones(3, np.float32), "b": np.full(2, number, np.float32)},
            place / "player-net.safetensors",
        )
        files = {name: {"bytes": 1, "sha256": "0"} for name in ("task.safetensors", "state.json")}
        files["player-net.safetensors"] = {"bytes": 1, "sha256": str(number)}
        (place / manifest.NAME).write_bytes(manifest.encode(64, 1, {}, files))
        (place.parents[1] / "metrics.jsonl").write_text(
            json.dumps({"clock": 64, "group": "loss", "x": number})
        )
        runs.append(place.parents[1])
    assert differences(runs[0], runs[1]) == [
        "player-net.safetensors: b differs by up to 1.00e+00",
        "metrics.jsonl differs",
    ]
    assert differences(runs[0], runs[0]) == []
    for run, grids in zip(runs, ({"16": b"a", "32": b"b"}, {"16": b"x"}), strict=True):
        (run / "samples" / "generated").mkdir(parents=True)
        for clock, data in grids.items():
            (run / "samples" / "generated" / f"{clock}.png").write_bytes(data)
    names = [f"samples/generated/{clock}.png differs" for clock in (16, 32)]
    assert differences(runs[0], runs[1])[-2:] == names
    assert differences(runs[0], runs[0]) == []
