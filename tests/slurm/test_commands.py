"""What a person types on a cluster: plans, sweeps, dependencies, stop and resume, an salloc, a site file."""

import re
import subprocess
from pathlib import Path

import pytest

from data_shards.files import write_json
from hpc.config.parse import load_config
from hpc.runs.run_dir import RunDir
from tests.slurm.conftest import ROOT, Cluster
from tests.slurm.jobs import Field, words
from tests.support.sets import pack_faces, pack_set

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def reached(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test itself ask the sandbox, too."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])


@pytest.fixture(scope="module")
def field(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("commands")
    return Field(cluster, folder, pack_set(folder / "set"))


def test_a_plan_shows_the_sbatch_text_and_how_many_allocations(field: Field) -> None:
    site = field.folder / "site.yaml"
    site.write_text(
        "cluster:\n  partition: preempt\n  modules: [cuda/13]\n  sbatch: {comment: from the site}\nhours: 2\n"
    )
    asked = [
        *words(field.shards),
        "nodes=4",
        "procs=2",
        "gpus=2",
        "name=plan",
        "dry_run=true",
        "cluster.account=me",
    ]
    text = field.rostro("submit", *asked, ROSTRO_SITE=str(site)).stdout
    for line in (
        *(
            "#SBATCH --partition=preempt",
            "#SBATCH --account=me",
            "#SBATCH --nodes=4",
            "#SBATCH --ntasks-per-node=2",
        ),
        *(
            "#SBATCH --gpus-per-node=2",
            "#SBATCH --time=120",
            "#SBATCH --requeue",
            "#SBATCH --signal=USR2@120",
        ),
        *("#SBATCH --comment='from the site'", "rostro_module cuda/13", "srun --unbuffered"),
    ):
        assert line in text
    assert "allocations  1 of 2 hours" in text
    assert not (field.folder / "runs").exists()
    assert (
        "--partition=main"
        in field.rostro("submit", *asked, "cluster.partition=main", ROSTRO_SITE=str(site)).stdout
    )
    site.write_text("cluster: {partion: preempt}\n")
    refused = field.rostro("submit", *asked, ok=False, ROSTRO_SITE=str(site)).stderr
    assert refused.startswith(f"error: {site}: unknown key cluster.partion: did you mean cluster.partition?")


def test_a_measured_rate_gives_the_number_of_allocations(field: Field) -> None:
    run = field.run("rated")
    run.path.mkdir(parents=True)
    write_json(run.status_file, {"state": "stopped", "clock": 100_000, "images": 1_000_000, "rate": 10.0})
    asked = [*words(field.shards, images=1_000_000), "name=rated", "dry_run=true", "hours=5", "cluster=slurm"]
    text = field.rostro("submit", *asked).stdout
    # 900,000 images are 25 hours; 2 minutes of each are lost.
    assert "allocations  6 of 5 hours, at 10 images/s" in text
    run.status_file.unlink()
    run.path.rmdir()


def test_a_sweep_is_one_job_for_each_point_and_a_run_may_wait_for_another(field: Field) -> None:
    asked = [*words(field.shards, images=96), "cluster=slurm", "name=s", "seed=0,1"]
    answer = field.rostro("submit", "-m", *asked).stdout
    jobs = re.findall(r"SLURM job (\d+)", answer)
    assert len(set(jobs)) == 2
    later = field.submit("later", nodes=1, images=96, after="s-seed=1")
    assert field.cluster.job(later)["Dependency"].startswith(f"afterok:{jobs[1]}")
    assert field.run("later").status()["state"] == "queued"
    assert "SLURM job" in field.rostro("resume", "later", ok=False).stderr  # in use: it waits in the queue
    for job in (*jobs, later):
        field.assert_completed(job)
    assert [load_config(field.run(f"s-seed={n}").config_file).seed for n in (0, 1)] == [0, 1]
    refused = field.rostro("submit", *words(field.shards), "after=nobody", ok=False)
    assert refused.returncode == 2
    assert "nobody is not a run directory" in refused.stderr
    done = field.rostro("submit", *words(field.shards, images=96), "name=x", "after=later", "dry_run=true")
    assert "dependency" not in done.stdout  # it has ended well


def test_classifiers_by_sbatch_and_by_a_sweep_over_jobs_and_seeds(cluster: Cluster, tmp_path: Path) -> None:
    faces = Field(cluster, tmp_path, pack_faces(tmp_path / "faces", "gender", "age", identities=12, size=32))
    script = faces.sbatch(name="alone", job="age", images=96)
    small = words(faces.shards, job="gender", images=96)[1:]
    answer = faces.rostro("submit", "-m", "task=gender,age", *small, "seed=1", "cluster=slurm").stdout
    jobs = re.findall(r"SLURM job (\d+)", answer)
    assert len(set(jobs)) == 2
    for job in (script, *jobs):
        faces.assert_completed(job)
    heads = {name: list(faces.run(name).config().task["heads"]) for name in ("alone", "gender", "age")}
    assert heads == {"alone": ["age"], "gender": ["gender"], "age": ["age"]}
    assert all(faces.run(name).status()["state"] == "finished" for name in heads)


def test_stop_and_resume_and_wait(field: Field) -> None:
    """A run that is waited for is followed through a requeue; stopped, it stays out of the queue."""
    follower = subprocess.Popen(
        [
            *_rostro(
                field, "submit", *words(field.shards, images=10**7), "name=w", "cluster=slurm", "wait=true"
            )
        ],
        cwd=field.folder,
        env=field.cluster.env | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    field.wait_clock("w", 64)
    job = field.run("w").ownership.job()
    field.cluster.run("scontrol", "requeue", job)
    field.wait_restart(job, 1)
    seen = field.run("w").status()["clock"]
    field.wait_clock("w", seen + 64)
    stopped = field.rostro("stop", "w").stdout
    assert "w: stopped at" in stopped
    output, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0, output
    assert "PENDING" in output
    assert output.count("RUNNING") == 2
    assert field.cluster.state(job) == "COMPLETED"
    field.assert_nobody_left("w")
    held = field.rostro("resume", "w", "cluster.sbatch={hold: true}").stdout
    assert field.run("w").status()["state"] == "queued", held
    assert "w: stopped" in field.rostro("stop", "w").stdout
    assert field.cluster.state(field.run("w").ownership.job()) == "CANCELLED"


def _rostro(field: Field, *typed: object) -> list[str]:
    import sys

    return [sys.executable, "-m", "launch.cli", *map(str, typed)]


def test_the_same_script_runs_by_bash_in_an_salloc(field: Field) -> None:
    import sys

    asked = [*words(field.shards, images=96), f"runs={field.folder / 'runs'}"]
    script = f"{ROOT}/slurm/siamese.sh"
    inner = f"bash {script} name=one {' '.join(asked)} && bash {script} name=two {' '.join(asked)}"
    field.cluster.run(
        *("salloc", "--nodes=2", "--ntasks-per-node=1", "bash", "-c", inner),
        cwd=field.folder,
        timeout=200,
        ROSTRO_PYTHON=sys.executable,
    )
    for name in ("one", "two"):
        assert field.run(name).status()["state"] == "finished"
        assert field.run(name).config().nodes == 2
        assert not field.run(name).ownership.in_use()


def test_a_start_that_was_overtaken_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_shards.errors import UserError

    run = RunDir(tmp_path)
    lock = {"host": "n9", "pid": 4, "started": 0.0, "job": "7", "slurm_restarts": 1, "restarts": 1}
    write_json(run.lock_file, lock)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="belongs to another start now"):
        run.write_status(state="running")
    with pytest.raises(UserError, match="was started again by its job 7"):
        run.ownership.acquire(job="7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run.write_status(state="running")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert run.ownership.acquire(job="7") == 2
    assert run.ownership.read()["slurm_restarts"] == 2
