"""A job that SLURM refuses leaves the disk as it was; a run whose job requeues itself is not resumed."""

import dataclasses
import os
from pathlib import Path

import pytest

import hpc.cluster.slurm
from data_shards.errors import UserError
from data_shards.files import write_json
from hpc.cluster.signals import StopReason
from hpc.config.parse import update_config
from hpc.runs.run_dir import RunDir
from launch import batch, cli
from launch.start import create, slurm
from launch.start.undo import OldRun
from tests.support.sets import pack_set

SAYS = {
    "refuses": "echo 'sbatch: error: invalid partition: x' >&2; exit 1",
    "is killed": "kill -9 $$",
    "answers nonsense": "echo hello",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    shards = pack_set(tmp_path_factory.mktemp("set"))
    return ["task=siamese", "smoke=true", f"data.train={shards / 'train'}", "cluster.partition=x"]


@pytest.fixture(autouse=True)
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that takes job 7; no controller answers."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "ROSTRO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(slurm, "chosen_cluster", lambda config: "slurm")
    monkeypatch.setattr(hpc.cluster.slurm, "ask", lambda *words, timeout=0.0: None)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bin" / "sbatch"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    says(path, "echo Submitted batch job 7")
    return path


def says(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/bash\n{line}\n")
    path.chmod(0o755)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert cli.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def everything(folder: Path) -> dict[str, object]:
    """Every path below a folder, with its content, its mode and the time of its last change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "code" not in path.parts and path.name != ".lock.json.guard":  # which every owner shares
            state = path.stat()
            content = (path.read_bytes(), state.st_mtime_ns) if path.is_file() else None
            found[str(path)] = (state.st_mode, content)
    return found


@pytest.mark.parametrize("how", SAYS)
def test_a_refused_submission_leaves_its_name_free(tmp_path, words, sbatch, capsys, how):
    says(sbatch, SAYS[how])
    message = refused(capsys, "submit", *words, "name=badp", "runs=deep/runs")
    assert message.startswith("error: sbatch refused the job: ")
    assert not (tmp_path / "deep").exists()
    says(sbatch, "echo Submitted batch job 7")
    assert cli.main(["submit", *words, "name=badp", "runs=deep/runs"]) == 0
    assert RunDir(tmp_path / "deep" / "runs" / "badp").ownership.job() == "7"


@pytest.mark.parametrize("how", [*SAYS, "is left by Ctrl-C"])
def test_a_job_whose_number_was_not_heard_is_cancelled(tmp_path, words, sbatch, monkeypatch, how):
    says(sbatch, SAYS.get(how, 'kill -INT "$PPID"; sleep 5'))
    mine, asked = tmp_path / "runs" / "a" / "submitit" / "submission_file_1.sh", []

    def ask(*words: str, timeout: float = 0.0) -> str:
        asked.append(words)
        return f"6|/elsewhere/runs/a/submitit/x.sh\n7|{mine}\n8|\n"

    monkeypatch.setattr(hpc.cluster.slurm, "ask", ask)
    assert cli.main(["submit", *words, "name=a"]) in (2, 130)
    assert [words for words in asked if words[0] == "scancel"] == [("scancel", "7")]
    assert not (tmp_path / "runs").exists()


def test_an_sbatch_that_is_missing_leaves_nothing(tmp_path, words, sbatch, capsys):
    sbatch.unlink()
    refused(capsys, "submit", *words, "name=a")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("after", ["nowhere", "²"])
def test_a_bad_after_is_refused_before_anything_is_made(tmp_path, words, capsys, after):
    message = refused(capsys, "submit", *words, "name=a", f"after={after}")
    assert f"after={after}: " in message
    assert "leave after= out" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("how", SAYS)
def test_a_resume_that_is_refused_leaves_the_run_as_it_was(tmp_path, words, sbatch, capsys, how):
    run = create.prepare([*words, "name=a"])
    run.stop_file.touch()
    before = everything(tmp_path / "runs")
    for more in ("after=nowhere", "cluster.partition=y"):
        says(sbatch, SAYS[how])
        refused(capsys, "resume", "a", more, "hours=3")
        assert everything(tmp_path / "runs") == before
    says(sbatch, "echo Submitted batch job 7")
    assert cli.main(["resume", "a"]) == 0
    assert (run.config().hours, run.ownership.job()) == (24.0, "7")


def test_a_resumed_run_waits_no_more_for_what_is_deleted(tmp_path, words, capsys):
    run = create.prepare([*words, "name=a"])
    update_config(dataclasses.replace(run.config(), after="gone"), run.config_file)
    assert "after=gone" in refused(capsys, "resume", "a")  # it never began
    (run.checkpoints / "000000000064").mkdir()
    assert "after=gone" in refused(capsys, "resume", "a", "after=gone")
    assert cli.main(["resume", "a"]) == 0
    assert run.config().after == ""


def test_a_run_that_cannot_be_prepared_leaves_nothing(tmp_path, words, monkeypatch, capsys):
    from launch.start import snapshot

    def full(target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "copy_code", full)
    assert "cannot be made" in refused(capsys, "submit", *words, "name=a", "prepare=true", "runs=x/y")
    assert not (tmp_path / "x").exists()


def test_a_batch_job_whose_plan_cannot_be_written_leaves_no_run(tmp_path, words, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("ROSTRO_BINDING", str(tmp_path / "jobs" / "c-7"))

    def refuse(*_: object) -> list[str]:
        raise UserError("no: type yes")

    monkeypatch.setattr(batch, "shell_lines", refuse)
    with pytest.raises(UserError, match="no: type yes"):
        batch.main(["start", *words[:-1], "name=a"])
    assert not (tmp_path / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("asked", "info", "state"),
    [
        (StopReason.TIME_LIMIT, {"JobState": "COMPLETING"}, "requeueing"),
        (StopReason.TIME_LIMIT, {"JobState": "RUNNING"}, "requeueing"),
        (StopReason.REQUEST, {"JobState": "COMPLETING", "PreemptTime": "2030-01-01T00:00:00"}, "requeueing"),
        (StopReason.TIME_LIMIT, {"JobState": "PENDING"}, "queued"),
        (StopReason.REQUEST, {"JobState": "COMPLETING"}, "stopped"),
        (StopReason.TIME_LIMIT, {"JobState": "COMPLETED"}, "stopped"),
        (StopReason.TIME_LIMIT, {}, "stopped"),
    ],
)
def test_a_run_between_save_and_requeue_says_so(tmp_path, words, monkeypatch, capsys, asked, info, state):
    run = create.prepare([*words, "name=a"])
    run.ownership.transfer_to_job("7")
    run.write_status(state="stopped", asked=asked)
    monkeypatch.setattr(hpc.cluster.slurm, "job_info", lambda job: info)
    assert run.status()["state"] == state
    if state == "requeueing":
        assert "resumes by itself, its job 7 is on the way into the queue" in refused(capsys, "resume", "a")
        run.stop_file.touch()
        assert run.status()["state"] == "stopped"


def test_what_another_start_took_meanwhile_is_not_put_back(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config_file.write_text("batch: 64\n")
    write_json(run.lock_file, {"host": "h", "pid": 0, "started": 0.0, "job": ""})
    before = OldRun(run)
    taken = {"host": "elsewhere", "pid": 11, "started": 1.0, "job": ""}
    write_json(run.lock_file, taken)
    before.undo()
    assert run.ownership.read() == taken
