"""Runs of 4 nodes that lose ranks, time and nodes, by sbatch and submitit, end as if nothing had happened.

Two stories go on at the same time. Each disturbs one run again and again; a test looks at the end of a story.
"""

import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from data_shards.files import read_json
from hpc.checkpoints import store
from hpc.runs.run_dir import RunDir
from tests.slurm.conftest import Cluster
from tests.slurm.jobs import Field, give_time, preempt, signal_time
from tests.support.sets import pack_set

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def field(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("survive")
    return Field(cluster, folder, pack_set(folder / "set"))


def time_is_up(field: Field, name: str, job: str, restart: int) -> None:
    """The controller's signal before the time limit: saved there, and in the queue once more."""
    held = field.hold(name)
    signal_time(field, job)
    field.until_told(held)
    field.wait_restart(job, restart)
    give_time(field, job)
    status = read_json(field.run(name).status_file)
    assert (status["state"], status["asked"]) == ("stopped", 2)
    assert int(store.listing(field.run(name).path)[-1].name) == status["clock"]


def higher_job_comes(field: Field, name: str, job: str, meeting: threading.Barrier) -> None:
    """One job of the higher partition takes the nodes of both stories; each run comes back by itself."""
    field.wait_clock(name, 64)
    held = field.hold(name)
    if meeting.wait() == 0:
        preempt(field, job)
    field.until_told(held)
    field.wait_restart(job, 1)


def sbatch_story(field: Field, meeting: threading.Barrier) -> str:
    """Preempted, killed, out of time, requeued by hand: somebody puts it back each time, once."""
    name = "batch"
    job = field.sbatch("--nodes=4", "--partition=preempt", name=name)
    higher_job_comes(field, name, job, meeting)
    field.wait_clock(name, 320)
    field.kill(name, 2)
    field.wait_restart(job, 2, limit=60)  # a dead rank ends the job in under a minute
    field.wait_clock(name, 512)
    time_is_up(field, name, job, 3)
    field.wait_clock(name, 768)
    held = field.hold(name)
    field.cluster.run("scontrol", "requeue", job)
    field.until_told(held)
    field.assert_completed(job)
    assert field.restarts(job) == 4
    return name


def submitit_story(field: Field, meeting: threading.Barrier) -> str:
    """Preempted, out of time, killed, hanging: signals by themselves, a `rostro resume` after each crash."""
    name = "submitted"
    job = field.submit(name, **{"cluster.partition": "preempt", "cluster.warning": 120, "hours": 0.5})
    higher_job_comes(field, name, job, meeting)
    field.wait_clock(name, 320)
    time_is_up(field, name, job, 2)
    field.wait_clock(name, 512)
    field.kill(name, 3)
    assert field.wait_ended(job, limit=60) == "FAILED"
    assert field.run(name).status()["state"] == "failed"
    field.assert_nobody_left(name)
    job = resumed(field, name, "hang_timeout=15")
    field.wait_clock(name, 768)
    field.rank(name, 1).send_signal(signal.SIGSTOP)
    assert field.wait_ended(job, limit=60) == "FAILED"
    field.assert_nobody_left(name)
    job = resumed(field, name)
    field.assert_completed(job)
    return name


def resumed(field: Field, name: str, *more: str) -> str:
    answer = field.rostro("resume", name, *more).stdout
    return next(line for line in answer.splitlines() if line.startswith("where")).split()[-1]


@pytest.fixture(scope="module")
def stories(field: Field, reference: RunDir) -> dict[str, "Future[str]"]:
    meeting = threading.Barrier(2, timeout=400)

    def told(story) -> str:
        try:
            return story(field, meeting)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        return {story.__name__: pool.submit(told, story) for story in (sbatch_story, submitit_story)}


@pytest.fixture(scope="module")
def reference(field: Field) -> RunDir:
    """The undisturbed run, by submitit."""
    name = "reference"
    job = field.submit(name)
    field.assert_completed(job)
    assert field.run(name).status()["state"] == "finished"
    field.assert_nobody_left(name)
    return field.run(name)


def test_a_run_by_sbatch_survives(field: Field, reference: RunDir, stories: dict) -> None:
    field.assert_like(reference, stories["sbatch_story"].result())


def test_a_run_by_submitit_survives(field: Field, reference: RunDir, stories: dict) -> None:
    field.assert_like(reference, stories["submitit_story"].result())


def test_two_runs_of_one_name_are_refused(field: Field, reference: RunDir) -> None:
    before = sorted(path for path in reference.path.rglob("*") if "__pycache__" not in path.parts)
    answer = field.rostro(
        "submit",
        "task=siamese",
        "name=reference",
        f"data.train={field.shards / 'train'}",
        "cluster=slurm",
        ok=False,
    )
    assert answer.returncode == 2
    assert "type `rostro resume reference`" in answer.stderr
    job = field.sbatch("--nodes=1", name="reference")
    assert field.wait_ended(job) == "FAILED"
    (log,) = Path(field.folder).glob(f"batch-*-{job}-*.out")
    assert "type `rostro resume reference`" in log.read_text()
    assert sorted(path for path in reference.path.rglob("*") if "__pycache__" not in path.parts) == before


def test_nodes_that_disagree_with_the_allocation_are_refused(field: Field) -> None:
    job = field.sbatch("--nodes=2", name="disagreeing", nodes=4)
    assert field.wait_ended(job) == "FAILED"
    (log,) = Path(field.folder).glob(f"batch-*-{job}-*.out")
    assert "nodes=4, but the allocation has 2" in log.read_text()
    assert not field.run("disagreeing").path.exists()


def test_a_crash_loop_that_does_not_advance_ends_and_says_why(field: Field) -> None:
    """Data that went away after the submission: each start fails, and the second is the last allowed."""
    moved = field.folder / "moved"
    os.symlink(field.shards, moved)
    name = "loop"
    job = field.sbatch(
        "--nodes=1", "--hold", name=name, **{"data.train": moved / "train", "cluster.attempts": 2}
    )
    field.cluster.run("scontrol", "release", job)
    field.wait("the run directory", lambda: field.run(name).config_file.exists())
    moved.unlink()
    assert field.wait_ended(job) == "FAILED"
    assert field.restarts(job) == 1
    status = field.run(name).status()
    assert status["state"] == "failed"
    assert "2 starts in a row saved nothing beyond the beginning" in status["message"]
    field.assert_nobody_left(name)
