"""The plan of the batch script at a job's first start, after a requeue, and without either; no SLURM."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_shards.errors import UserError
from data_shards.files import read_json, write_json
from data_shards.shard_format.shard_set import ShardSet
from hpc.cluster import slurm
from hpc.cluster.signals import StopReason
from hpc.runs.run_dir import RunDir
from launch import batch
from launch.options.conf import smoke_overrides
from launch.start import create
from launch.start.set_digests import digests
from tests.support.command import environment
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    shards = pack_set(tmp_path_factory.mktemp("set"))
    return ["task=siamese", *smoke_overrides("siamese"), f"data.train={shards / 'train'}"]


@pytest.fixture(autouse=True)
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Job 7 on two nodes, whose script runs in `tmp_path`; no controller answers."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "ROSTRO_"))]:
        monkeypatch.delenv(name)
    place = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "1"}
    for name, value in (place | {"ROSTRO_BINDING": str(tmp_path / "state" / "jobs" / "c-7")}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "ask", lambda *words, timeout=0.0: None)
    monkeypatch.chdir(tmp_path)
    return "7"


def started(*words: str, restart: int = 0) -> RunDir:
    """The run that `start` names in its lines."""
    os.environ["SLURM_RESTART_COUNT"] = str(restart)
    try:
        assert batch.main(["start", *words]) == 0
    finally:
        del os.environ["SLURM_RESTART_COUNT"]
    return RunDir(Path(os.environ["ROSTRO_BINDING"]).read_text().strip())


def test_a_requeue_finds_its_run_wherever_runs_are(tmp_path, words, monkeypatch, capsys):
    """The site's folder, one with a ~: nothing depends on how `runs` reads the second time."""
    site = tmp_path / "site.yaml"
    site.write_text(f"runs: {tmp_path / 'scratch'}\n")
    monkeypatch.setenv("ROSTRO_SITE", str(site))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for more, place in (([], "scratch"), (["runs=~/x"], "home/x")):
        run = started(*words, "name=a", *more)
        assert run.path == tmp_path / place / "a"
        assert run.ownership.job() == "7"
        assert run.status()["state"] == "prepared"
        before = run.config_file.read_text()
        capsys.readouterr()
        site.write_text("runs: /nowhere\n")
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert started("task=siamese", "name=other", restart=1).path == run.path
        assert capsys.readouterr().out.startswith(f"run {run.path}\n")
        assert run.config_file.read_text() == before
    assert not (tmp_path / "runs").exists()
    assert sorted(path.name for path in (tmp_path / "home" / "x").iterdir()) == ["a"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_that_is_killed_at_the_commit_of_its_run_leaves_a_requeue_working(words, monkeypatch, when):
    class Killed(BaseException):
        pass

    rename = Path.rename

    def dies(path: Path, target: Path) -> None:
        if when == "after":
            rename(path, target)
        raise Killed

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(Killed):
        batch.main(["start", *words, "name=a"])
    monkeypatch.setattr(Path, "rename", rename)
    run = started(*words, "name=a", restart=1)
    assert (run.name, run.ownership.job()) == ("a", "7")


def test_a_run_of_that_name_that_another_job_made_is_not_taken_for_ones_own(words, monkeypatch):
    run = started(*words, "name=a")
    write_json(run.git_file, read_json(run.git_file) | {"job": "6"})
    with pytest.raises(UserError, match="a exists: type `rostro resume a`"):
        started(*words, "name=a", restart=1)


def test_bindings_of_runs_that_are_gone_are_cleared_away(tmp_path, words):
    folder = tmp_path / "state" / "jobs"
    folder.mkdir(parents=True)
    for name, path in (("c-1", tmp_path / "gone"), ("c-2", tmp_path), ("c-3", tmp_path / "gone")):
        (folder / name).write_text(f"{path}\n")
    for name in ("c-1", "c-2"):
        os.utime(folder / name, (0, 0))
    started(*words)
    assert sorted(path.name for path in folder.iterdir()) == ["c-2", "c-3", "c-7"]


def test_a_binding_that_cannot_be_written_makes_no_run(tmp_path, words):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written .* export XDG_STATE_HOME=FOLDER"):
        batch.main(["start", *words, "name=a"])
    assert not (tmp_path / "runs").exists()


def test_a_set_is_opened_once_for_all_runs_of_a_sweep(tmp_path, words, monkeypatch):
    folders = []
    plain = ShardSet.open.__func__

    def counted(cls, folder, **options):
        folders.append(str(folder))
        return plain(cls, folder, **options)

    monkeypatch.setattr(ShardSet, "open", classmethod(counted))
    opened = {}
    plans = [create.resolve([*words, f"seed={seed}"], opened=opened) for seed in (0, 1)]
    runs = [create.make(plan) for plan in plans]
    assert len(folders) == len(set(folders)) == len(plans[0].sets) > 0
    for run, plan in zip(runs, plans, strict=True):
        assert read_json(run.data_file) == digests(run.config())
        assert run.config().seed == plan.config.seed


def test_runs_without_a_name_that_start_in_the_same_second(tmp_path, words, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *args: "20300101-000000")
    plan = create.resolve(words)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: create.make(plan), range(4)))
    names = sorted(run.name for run in runs)
    assert names == ["siamese-20300101-000000", *(f"siamese-20300101-000000+{n}" for n in (2, 3, 4))]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert sorted(run.config().name for run in runs) == names
    with pytest.raises(UserError, match="name=siamese"):
        create.prepare([*words, f"name={names[0]}"])


def test_what_sbatch_was_told_is_kept_for_a_resume(words, monkeypatch):
    told = {"SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "6", "SLURM_MEM_PER_NODE": "32768"}
    for name, value in (told | {"SLURM_JOB_PARTITION": "main"}).items():
        monkeypatch.setenv(name, value)
    config = started(*words).config()
    assert (config.gpus, config.cluster.cpus, config.cluster.mem_gb) == (2, 6, 32)
    assert (config.nodes, config.cluster.partition, config.cluster.name) == (2, "main", "slurm")
    with pytest.raises(
        UserError, match=r"gpus=4, but the allocation has 2 a node: .* sbatch --gpus-per-node=4"
    ):
        batch.main(["start", *words, "gpus=4"])
    monkeypatch.delenv("SLURM_GPUS_ON_NODE")
    monkeypatch.setenv("SLURM_GPUS_PER_NODE", "a100:3")
    assert started(*words).config().gpus == 3


def test_a_requeue_that_cannot_go_on_says_so_in_the_runs_status(words, monkeypatch):
    run = started(*words, "name=a", "batch=16")
    run.write_status(state="running")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    with pytest.raises(UserError):
        started(restart=1)
    status = run.status()
    assert status["state"] == "failed"
    assert "3 nodes now instead of 2: batch=16 is not divisible by 3 ranks" in status["message"]
    assert "`rostro resume a` asks for 2 nodes" in status["message"]
    assert "use " not in status["message"]
    assert run.config().nodes == 2
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "4")
    assert started(restart=1).config().nodes == 4


@pytest.mark.parametrize("owner", ["8", ""])
def test_a_job_leaves_a_run_alone_that_was_resumed_in_another_way(words, monkeypatch, owner):
    run = started(*words, "name=a")
    run.ownership.transfer_to_job(owner)
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    for call in (["start", *words, "name=a"], ["end", str(run.path), "1"]):
        with pytest.raises(UserError, match=r"run a belongs to .* since it was resumed: job 7 is over"):
            batch.main(call)
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


class Site:
    """The batch script itself, between commands of a SLURM that write down how they were called."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.folder, self.words, self.bin = folder, words, folder / "bin"
        self.bin.mkdir()
        self.says("scontrol", '[ "$1" = requeue ] || echo JobState=RUNNING Restarts=0 BatchFlag=1 "$EXTRA"')
        for name in ("squeue", "scancel", "sleep"):
            self.says(name, "true")
        self.says(
            "srun", "while [ $# -gt 0 ] && [[ $1 = --* ]]; do shift; done; printf '%s|' \"$@\" >>program"
        )

    def says(self, name: str, line: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho {name} "$@" >>{self.folder}/calls\n{line}\n')
        path.chmod(0o755)

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        """Exit code and errors of the script."""
        root = Path(batch.__file__).parents[1]
        given = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
        given |= environment() | {"PATH": f"{self.bin}:{os.environ['PATH']}", "ROSTRO_PYTHON": sys.executable}
        given |= {"XDG_STATE_HOME": str(self.folder / "state"), **variables}
        command = ["bash", str(root / "slurm" / "siamese.sh"), *self.words, *words]
        done = subprocess.run(command, cwd=self.folder, env=given, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    def calls(self, name: str) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] == name]


@pytest.fixture
def site(tmp_path, words) -> Site:
    return Site(tmp_path, words)


def test_the_script_starts_the_ranks_with_a_python_whose_path_has_a_space(site):
    environment = site.folder / "a folder"
    environment.symlink_to(sys.prefix)
    python = environment / "bin" / Path(sys.executable).name
    site.says("srun", f'while [[ $1 = --* ]]; do shift; done; printf "%s\\n" "$@" >{site.folder}/program')
    code, errors = site.run("name=a", ROSTRO_PYTHON=str(python))
    assert code == 0, errors
    run = RunDir(site.folder / "runs" / "a")
    program = (site.folder / "program").read_text().splitlines()
    assert program == [str(python), "-u", "-m", "hpc.rank", str(run.path)]
    binding = site.folder / "state" / "rostro" / "jobs" / "cluster-7"
    assert binding.read_text() == f"{run.path}\n"


def test_the_sites_lines_may_use_variables_that_nobody_set(site):
    """As modules and conda do."""
    code, errors = site.run("name=a", 'cluster.setup=["export MINE=$NOBODY_SET_THIS:/x"]')
    assert code == 0, errors
    assert len(site.calls("srun")) == 1


def test_lines_of_the_site_that_end_the_script_end_in_the_runs_status(site):
    for count in range(3):
        code, errors = site.run("name=a", "cluster.setup=[exit 4]", SLURM_RESTART_COUNT=str(count))
    assert not site.calls("srun")
    assert [" requeue 7" in call for call in site.calls("scontrol")].count(True) == 2
    status = RunDir(site.folder / "runs" / "a").status()
    assert code == 4, errors
    assert status["state"] == "failed"
    assert "3 starts in a row saved nothing" in status["message"]


@pytest.mark.parametrize(
    ("name", "level", "again"), [("USR1", StopReason.TIME_LIMIT, True), ("TERM", StopReason.REQUEST, False)]
)
def test_a_signal_before_the_ranks_are_started(site, name, level, again):
    """While Python resolves the words or the site's lines run: nothing to save, and the job is not lost."""
    line = f"kill -{name} $$"
    code, errors = site.run("name=a", f"cluster.setup=[{line}]")
    assert code == 0, errors
    assert not site.calls("srun")
    assert (len([call for call in site.calls("scontrol") if " requeue 7" in call]) == 1) is again
    status = read_json(RunDir(site.folder / "runs" / "a").status_file)
    assert (status["state"], status["asked"]) == ("stopped", level)


def test_a_signal_of_the_time_limit_reaches_the_ranks_of_this_job_alone(site):
    """In an array `scancel` of the job's own number may mean all of its tasks."""
    heard = site.folder / "heard"
    site.says(
        "srun", f"trap 'touch {heard}' USR1; kill -USR1 $PPID; until [ -e {heard} ]; do sleep 0.1; done"
    )
    code, errors = site.run("name=a", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="1")
    assert code == 0, errors
    assert heard.exists()
    assert not site.calls("scancel")
    assert RunDir(site.folder / "runs" / "a-1").ownership.job() == "7_1"


def test_ctrl_c_in_an_salloc_stops_the_ranks_and_frees_the_run(site):
    site.says("scontrol", "echo JobState=RUNNING Restarts=0 BatchFlag=0")
    site.says("squeue", f"echo 7.3 $(cat {site.folder}/mark)")
    site.says("scancel", f"touch {site.folder}/told")
    site.says(
        "srun",
        f"for word; do [[ $word != --job-name=* ]] || echo ${{word#*=}} >{site.folder}/mark; done\n"
        f"kill -INT $PPID; until [ -e {site.folder}/told ]; do sleep 0.1; done",
    )
    code, errors = site.run("name=a")
    assert code == 130, errors
    assert site.calls("scancel") == ["scancel --signal=TERM 7.3"]
    run = RunDir(site.folder / "runs" / "a")
    assert "to resume it: rostro resume a" in errors
    assert not run.ownership.in_use()
