"""`rostro stop` of a run whose job cannot be reached."""

from pathlib import Path

from data_shards.files import write_json
from hpc.cluster import slurm
from hpc.runs.run_dir import RunDir
from launch import cli


def test_a_job_that_no_slurm_answers_for_is_not_waited_for(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "ask", lambda *words, timeout=0.0: None)
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config_file.write_text("task: {name: siamese}\n")
    write_json(run.lock_file, {"host": "h", "pid": 0, "started": 0.0, "job": "7", "queued": True})
    assert cli.main(["stop", str(run.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "belongs to job 7, and no SLURM answers here: type `rostro stop" in line
