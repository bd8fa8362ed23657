"""A run from the command line: started, listed, stopped, resumed, followed; by submitit and by torchrun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.config.parse import load_config
from hpc.runs.run_dir import RunDir
from launch.options.conf import smoke_overrides
from tests.support.command import ROOT, environment, refused, rostro
from tests.support.modes import odd, shared_umask
from tests.support.runs import wait_for
from tests.support.sets import pack_set

LONG = "images=50_000_000"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def words(shards: Path, name: str, *more: str) -> list[str]:
    smoke = [word for word in smoke_overrides("siamese") if not word.startswith(("images=", "eval.every"))]
    data = [f"data.train={shards / 'train'}", "data.backend=host"]
    return ["task=siamese", *smoke, "eval.every=1000000", *data, "images=96", f"name={name}", *more]


def test_start_list_stop_resume(tmp_path, shards):
    answer = rostro("submit", *words(shards, "a", LONG, "procs=2"), cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    run = RunDir(tmp_path / "runs" / "a")
    for text in (f"run          {run.path}", str(run.log(0)), f"tensorboard --logdir {tmp_path / 'runs'}"):
        assert text in answer.stdout
    try:
        assert "in use by a living job" in refused(rostro("resume", "a", cwd=tmp_path))
        wait_for(lambda: run.status().get("clock", 0) > 0)
        ranks = run.ranks()
        assert len(ranks) == 2
        # Closing the terminal does not end the ranks.
        assert all(os.getsid(place[1]) != os.getsid(0) for place in ranks.values())
        (row,) = json.loads(rostro("status", "json=true", cwd=tmp_path).stdout)
        assert (row["state"], row["ranks"], row["images"]) == ("running", 2, 50_000_000)
        assert row["rate"] > 0
        assert row["left"] > 0
    finally:
        stopped = rostro("stop", "a", cwd=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    clock = run.status()["clock"]
    assert f"a: stopped at {clock:,} of 50,000,000 images" in stopped.stdout
    assert "not running, it is stopped" in refused(rostro("stop", "a", cwd=tmp_path))

    assert "batch=32 would change run a, where it is batch=16" in refused(
        rostro("resume", "a", "batch=32", cwd=tmp_path)
    )
    assert "unknown key proc" in refused(rostro("resume", "a", "proc=1", cwd=tmp_path))
    assert "procs=5" not in refused(rostro("resume", "a", "procs=5", cwd=tmp_path)).split("use")[-1]
    assert load_config(run.config_file).procs == 2

    follower = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "resume", "a", "procs=1", "wait=true"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: run.status().get("clock", 0) > clock)
    follower.send_signal(signal.SIGINT)
    output, _ = follower.communicate(timeout=120)
    assert follower.returncode == 130, output
    assert "a: stopped at" in output
    assert "cosine_genuine" in output  # the log was shown
    assert load_config(run.config_file).procs == 1
    assert run.ownership.read()["restarts"] == 1
    table = rostro("status", cwd=tmp_path).stdout
    assert "stopped" in table


def test_wait_returns_the_end_and_a_finished_run_stays_finished(tmp_path, shards):
    with shared_umask():
        answer = rostro("submit", *words(shards, "b", "wait=true", "procs=2", "engine=flat"), cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "b: finished at 96 of 96 images" in answer.stdout
    assert "run b is finished (96 of 96 images)" in refused(rostro("resume", "b", cwd=tmp_path))
    run = RunDir(tmp_path / "runs" / "b")
    assert (run.checkpoints / "000000000096").is_dir()
    assert run.log(1).exists()
    assert odd(tmp_path) == {}


def test_a_failure_comes_back(tmp_path, shards):
    """A killed rank ends `wait=true` with 1; afterwards only the set that the run began with is accepted."""
    rostro("submit", *words(shards, "c", "prepare=true"), cwd=tmp_path)
    run = RunDir(tmp_path / "runs" / "c")
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace(str(shards / "train"), str(tmp_path / "gone")))
    gone = tmp_path / "gone"
    gone.symlink_to(shards / "train")
    answer = rostro("resume", "c", "wait=true", cwd=tmp_path, ROSTRO_FAULT="step@32")
    assert answer.returncode == 1, answer.stdout
    assert "c failed" in answer.stderr
    (row,) = json.loads(rostro("status", "json=true", cwd=tmp_path).stdout)
    assert row["state"] == "dead"
    gone.unlink()
    assert "data.train=" in refused(rostro("resume", "c", cwd=tmp_path))
    gone.symlink_to(shards / "eval")
    assert "is not the set that run c began with" in refused(rostro("resume", "c", cwd=tmp_path))


def test_the_same_run_by_torchrun(tmp_path, shards):
    answer = rostro("submit", *words(shards, "t", "prepare=true", "procs=2"), cwd=tmp_path)
    line = next(line for line in answer.stdout.splitlines() if line.startswith("start it"))
    program = f" {sys.executable} -m torch.distributed.run "
    command = line.removeprefix("start it").strip().replace(" torchrun ", program)
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    run = RunDir(tmp_path / "runs" / "t")
    assert run.status()["state"] == "finished"
    assert (run.checkpoints / "000000000096").is_dir()


def test_an_edit_in_the_checkout_does_not_reach_a_run(tmp_path, shards):
    """The ranks import the copy: a mark written there shows up in the log."""
    rostro("submit", *words(shards, "d", "prepare=true"), cwd=tmp_path)
    run = RunDir(tmp_path / "runs" / "d")
    copy = run.code / "hpc" / "train.py"
    head = "def main(run: str, listener: SignalListener | None = None) -> int:"
    copy.write_text(copy.read_text().replace(head, f"{head}\n    print('copy')", 1))
    answer = rostro("resume", "d", "wait=true", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "copy" in run.log(0).read_text().splitlines()
    assert "print('copy')" not in (ROOT / "hpc" / "train.py").read_text()
