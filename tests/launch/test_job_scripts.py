"""slurm/<job>.sh: one for each job, alike but for its name, and each alone starts what its yaml says."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.cluster import slurm
from hpc.config.check import check
from hpc.config.sizes import sizes
from hpc.runs.run_dir import RunDir
from launch import batch
from launch.options.compose import composed, task_yaml
from launch.options.conf import choices, plan_of_task
from launch.start import snapshot
from tests.support.object_set import pack_objects
from tests.support.sets import pack_faces

SLURM = Path(batch.__file__).parents[1] / "slurm"
BODIES = ("job", "sandbox")  # scripts of that folder that are not those of a job
JOBS = choices("task")
# Jobs that take days even on several GPUs
SIZES = dict.fromkeys(("progan", "stylegan"), "--nodes=1 --ntasks-per-node=4 --gpus-per-node=4")


def test_each_job_has_a_script() -> None:
    scripts = {path.stem for path in SLURM.glob("*.sh")}
    assert scripts - set(BODIES) == set(JOBS)
    assert all(os.access(SLURM / f"{job}.sh", os.X_OK) for job in JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_the_scripts_differ_in_name_and_size_of_the_job_alone(job: str) -> None:
    """Under sbatch a script is copied away from its folder, so that what finds the checkout is in each."""
    lines, others = ((SLURM / f"{name}.sh").read_text().splitlines() for name in (job, "siamese"))
    differing = [number for number, pair in enumerate(zip(lines, others, strict=True)) if len(set(pair)) > 1]
    assert lines[1] == f"#SBATCH --job-name={job}"
    assert f"sbatch slurm/{job}.sh" in lines[5].replace("--nodes=4 ", "")
    assert f"data.set={task_yaml(job)['data']['set']} ".replace("lfw_train_112", "lfw") in lines[5]
    assert lines[6].endswith(f"bash slurm/{job}.sh")
    assert lines[-1] == f'exec bash "$here/slurm/job.sh" task={job} "$@"'
    assert lines[2] == f"#SBATCH {SIZES.get(job, '--nodes=1 --ntasks-per-node=1')}"
    assert set(differing) <= {1, 2, 5, 6, len(lines) - 1}


@pytest.mark.parametrize("job", SIZES)
def test_the_ranks_of_a_script_divide_every_batch_of_the_real_configuration(job: str) -> None:
    """Each rank has a GPU of its own, and whole groups of images that are judged together."""
    ranks, gpus = re.findall(r"-per-node=(\d+)", SIZES[job])
    assert ranks == gpus
    config = composed([f"task={job}", f"procs={ranks}", f"gpus={gpus}"])
    check(config)
    stages = sizes(config).stages
    assert (stages[-1].size, len(stages)) == (1024, {"progan": 9, "stylegan": 8}[job])
    assert all(stage.batch % (int(ranks) * config.task["group"]) == 0 for stage in stages)


@pytest.mark.parametrize("job", JOBS)
def test_a_script_asks_for_its_job_with_the_words_behind_it(job: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/asked\nexit {batch.STOPPED}\n')
    python.chmod(0o755)
    copy = tmp_path / "slurm_script"  # as slurmd runs it
    copy.write_bytes((SLURM / f"{job}.sh").read_bytes())
    given = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(SLURM), "SLURM_JOB_ID": "7"}
    given |= {"HOME": str(tmp_path), "ROSTRO_PYTHON": str(python)}
    done = subprocess.run(["bash", str(copy), "name=a b"], env=given, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["-m", "launch.batch", "start", f"task={job}", "name=a b"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of packed sets, into which a job's own is packed if it is not there yet.

    It has the labels of all jobs of that set, and images of half of what they make at least.
    """
    shards = tmp_path_factory.mktemp("shards")

    def with_set_of(job: str) -> Path:
        folder = shards / task_yaml(job)["data"]["set"]
        if not folder.exists():
            if "boxes" in plan_of_task(job).fields("train"):
                pack_objects(folder, 8, classes=tuple(task_yaml(job)["task"]["classes"]))
                return shards
            users = [name for name in JOBS if task_yaml(name)["data"]["set"] == folder.name]
            largest = max(task_yaml(name)["data"]["size"] for name in users)
            pack_faces(folder, *users, each=2, size=largest // 2)
        return shards

    return with_set_of


@pytest.mark.parametrize("job", JOBS)
def test_alone_it_starts_the_real_configuration(
    job: str, packed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "ROSTRO_"))]:
        monkeypatch.delenv(name)
    shards = packed(job)
    given = {"SLURM_JOB_ID": "7", "ROSTRO_BINDING": str(tmp_path / "bound"), "ROSTRO_SHARDS": str(shards)}
    ranks, gpus = re.findall(r"-per-node=(\d+)", SIZES[job]) if job in SIZES else ("1", "0")
    given |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": ranks, "SLURM_GPUS_ON_NODE": gpus}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "ask", lambda *words, timeout=0.0: None)
    monkeypatch.setattr(snapshot, "copy_code", lambda code: code.mkdir())
    monkeypatch.chdir(tmp_path)
    assert batch.main(["start", f"task={job}"]) == 0
    config, yaml = RunDir(Path((tmp_path / "bound").read_text().strip())).config(), task_yaml(job)
    assert config.data.train == str(shards / yaml["data"]["set"] / "train")
    assert config.data.eval == str(shards / yaml["data"]["set"] / "eval")
    assert (config.images, config.batch) == (int(yaml["images"]), yaml["batch"])
    assert (config.nodes, config.procs, config.gpus) == (1, int(ranks), int(gpus))
    assert config.data.size == yaml["data"]["size"]
    assert config.task == yaml["task"]
