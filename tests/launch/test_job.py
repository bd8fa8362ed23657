"""The steps of a rank before it trains, and commands that are typed inside another job."""

import os
from pathlib import Path

import pytest

from hpc.cluster import slurm
from hpc.config.parse import save_config
from hpc.config.schema import Cluster, Config
from hpc.runs import requeue
from hpc.runs.run_dir import RunDir
from launch import job
from launch.start import local, start
from launch.start import slurm as by_submitit
from launch.start.undo import OldRun
from tests.launch.test_run import LONG, shards, words  # noqa: F401 - `shards` is a fixture
from tests.support.command import refused, rostro
from tests.support.runs import wait_for

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}


def make(runs: Path, name: str, **more: object) -> RunDir:
    run = RunDir(runs / name)
    run.path.mkdir(parents=True)
    save_config(Config(task={"name": "siamese"}, name=name, runs=str(runs), **more), run.config_file)
    return run


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is rank 0 of job 7."""
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(slurm, "ask", lambda *words, timeout=0.0: None)


def test_starts_that_slurm_repeats_without_progress_come_to_an_end(tmp_path, monkeypatch, rank):
    """Preempted with too short a grace time, a lost node: nobody but the next start can see it."""
    run = make(tmp_path, "a", cluster=Cluster(attempts=3))
    run.ownership.acquire(job="7")
    for count in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(count))
        job.Job(str(run.path))._begin(run)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(SystemExit, match="3 starts in a row saved nothing beyond the beginning"):
        job.Job(str(run.path))._begin(run)
    status = run.status()
    assert status["state"] == "failed"
    assert "cluster.attempts=3" in status["message"]
    (run.checkpoints / "000000000096").mkdir(parents=True)
    job.Job(str(run.path))._begin(run)


def test_a_run_does_not_start_after_one_that_was_stopped(tmp_path, monkeypatch, rank):
    """Whose job ended well for SLURM."""
    first, second = make(tmp_path, "first"), make(tmp_path, "second", after="first")
    first.write_status(state="stopped", clock=96)
    second.ownership.acquire(job="7")
    with pytest.raises(SystemExit, match="after=first: that run is stopped: `rostro resume first`"):
        job.Job(str(second.path))._begin(second)
    assert second.status()["state"] == "failed"
    assert requeue.newest_clock(second) < 0
    first.write_status(state="finished")
    job.Job(str(second.path))._begin(second)
    assert second.starts_file.exists()
    third = make(tmp_path, "third", after="12345")
    job.Job(str(third.path))._begin(third)
    assert third.starts_file.exists()


def test_a_run_that_gives_up_is_a_failed_job(tmp_path, monkeypatch, rank):
    """So that nothing that waits for it starts."""
    run = make(tmp_path, "a")
    monkeypatch.setattr(requeue, "decision", lambda *args, **more: (False, "it gives up"))
    with pytest.raises(SystemExit, match="it gives up"):
        job.Job(str(run.path))._requeue(run)
    assert run.status()["state"] == "failed"


def test_a_run_of_this_machine_is_no_part_of_the_job_in_which_it_is_typed(tmp_path, shards):  # noqa: F811
    """As in `srun --pty bash`: to stop it must not cancel the session."""
    said = tmp_path / "said"
    fake(tmp_path / "bin", "scancel", f"touch {said}")
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    answer = rostro("submit", *words(shards, "a", LONG, "cluster=local"), cwd=tmp_path, **STEP, **path)
    assert answer.returncode == 0, answer.stderr
    run = RunDir(tmp_path / "runs" / "a")
    try:
        wait_for(lambda: run.status().get("clock", 0) > 0)
        assert "in use by a living job (process" in refused(
            rostro("resume", "a", cwd=tmp_path, **STEP, **path)
        )
    finally:
        stopped = rostro("stop", "a", cwd=tmp_path, **STEP, **path)
    assert "a: stopped at" in stopped.stdout, stopped.stderr
    assert run.ownership.read()["job"] == ""
    assert not said.exists()


def test_a_queued_run_may_be_stopped_from_inside_of_another_job(tmp_path):
    run = make(tmp_path / "runs", "a")
    run.write_status(state="starting")
    run.ownership.acquire(job="12")
    run.ownership.transfer_to_job("12")
    gone = tmp_path / "gone"
    fake(tmp_path / "bin", "scontrol", f"[ -e {gone} ] && echo JobState=CANCELLED || echo JobState=PENDING")
    fake(tmp_path / "bin", "scancel", f"touch {gone}")
    answer = rostro("stop", "a", cwd=tmp_path, **STEP, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert answer.returncode == 0, answer.stderr
    assert "a: stopped at" in answer.stdout
    assert run.status()["message"] == "job 12 was taken out of the queue"


def fake(folder: Path, name: str, line: str) -> None:
    """A command of SLURM that is one line."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{line}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("word", ["gpus=2", "hours=3", "cluster.partition=gpu"])
def test_what_only_a_slurm_gives_is_refused_on_this_machine(tmp_path, word):
    line = refused(rostro("submit", "task=siamese", "cluster=local", word, "dry_run=true", cwd=tmp_path))
    assert f"{word} is a request to SLURM, but the run would start on this machine: leave it out" in line


def test_an_allocation_is_no_minute_longer_than_asked(tmp_path):
    for hours, minutes in ((0.1667, 10), (0.166667, 10), (1.0, 60), (0.51, 31), (0.001, 1)):
        run = make(tmp_path, f"{hours}", hours=hours)
        assert by_submitit.parameters(run, run.config())["time"] == minutes


def test_no_word_of_a_silent_slurm_where_one_answers(tmp_path, monkeypatch, capsys):
    """The line that says where a run is, typed cluster=local on a machine that has an sbatch."""
    fake(tmp_path / "bin", "sbatch", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(local, "start_ranks", lambda run, procs: os.getpid())
    for answer, said in (("UP", False), ("DOWN", True)):
        fake(tmp_path / "bin", "scontrol", f"echo Slurmctld is {answer}")
        run = make(tmp_path, answer)
        assert start.start_run(run, run.config(), OldRun(run)) == 0
        assert ("no SLURM answers" in capsys.readouterr().out) is said
