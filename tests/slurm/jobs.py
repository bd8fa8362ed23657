"""Runs on the sandbox, for tests: submitted by both ways, watched by their files, disturbed, compared."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from hpc.runs.processes import alive
from hpc.runs.run_dir import RunDir
from launch.audit.compare import differences
from launch.options.conf import smoke_overrides
from tests.slurm.conftest import ROOT, Cluster

IMAGES = 1280
KEPT = ("hpc", "models", "data_shards", "launch", "slurm", "pyproject.toml")


def words(shards: Path, *, job: str = "siamese", **more: Any) -> list[str]:
    """A small run that saves every 96 images (siamese) and is evaluated at its end."""
    changed = {"images": IMAGES, "eval.every": 10**6, "data.backend": "host", "hang_timeout": 60}
    changed |= {"data.group": 2} if job == "siamese" else {}
    changed |= {"data.train": shards / "train"} | more
    smoke = [word for word in smoke_overrides(job) if word.partition("=")[0] not in changed]
    return [f"task={job}", *smoke, *(f"{key}={value}" for key, value in changed.items())]


class Field:
    """One folder in which runs of the sandbox are made, and the checkout that they come from."""

    def __init__(self, cluster: Cluster, folder: Path, shards: Path, checkout: Path = ROOT) -> None:
        self.cluster, self.folder, self.shards, self.checkout = cluster, folder, shards, checkout
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str) -> RunDir:
        return RunDir(self.folder / "runs" / name)

    def rostro(self, *typed: object, ok: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """The `rostro` command in the folder."""
        done = subprocess.run(
            [sys.executable, "-m", "launch.cli", *map(str, typed)],
            cwd=self.folder,
            env=self.cluster.env | {"PYTHONPATH": str(self.checkout)} | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not ok or done.returncode == 0, f"{typed}: {done.stdout}{done.stderr}\n{self.cluster.story()}"
        return done

    def submit(
        self, name: str, *, nodes: int = 4, variables: dict[str, str] | None = None, **more: Any
    ) -> str:
        """By submitit; the job's id."""
        asked = words(self.shards, **more)
        given = [*asked, f"name={name}", f"nodes={nodes}", "cluster=slurm"]
        answer = self.rostro("submit", *given, **(variables or {})).stdout
        line = next(line for line in answer.splitlines() if line.startswith("where"))
        return line.split()[-1]

    def sbatch(
        self,
        *options: str,
        name: str,
        job: str = "siamese",
        variables: dict[str, str] | None = None,
        **more: Any,
    ) -> str:
        """By sbatch of slurm/<job>.sh, typed in the checkout; the job's id."""
        asked = [*words(self.shards, job=job, **more)[1:], f"name={name}", f"runs={self.folder / 'runs'}"]
        output = self.folder / "batch-%x-%A-%a.out"
        command = ["sbatch", "--parsable", "--time=30", f"--output={output}", *options]
        answer = self.cluster.run(
            *command,
            f"{self.checkout}/slurm/{job}.sh",
            *asked,
            cwd=self.checkout,
            ROSTRO_PYTHON=sys.executable,
            **(variables or {}),
        )
        return answer.strip().split(";")[0]

    def wait(self, what: str, true: Any, *, limit: float = 240) -> None:
        try:
            self.cluster.wait(what, true, limit=limit)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def wait_clock(self, name: str, clock: int, *, limit: float = 240) -> None:
        """Until the run says that it has trained up to `clock`, in the start that is under way."""
        self.wait(f"clock {clock} of {name}", lambda: self._clock(name) >= clock, limit=limit)

    def _clock(self, name: str) -> int:
        run, status = self.run(name), self.run(name).status()
        assert status["state"] != "finished", f"{name} came to its end, undisturbed: {status}"
        here = any(alive(*place) for place in run.ranks().values())  # else the file is of the start before
        return int(status.get("clock") or 0) if status["state"] == "running" and here else 0

    def wait_restart(self, job: str, count: int, *, limit: float = 120) -> None:
        """Until SLURM has put the job back into the queue for the `count`th time."""
        self.wait(f"restart {count} of {job}", lambda: self.restarts(job) >= count, limit=limit)

    def restarts(self, job: str) -> int:
        return int(self.cluster.job(job)["Restarts"])

    def wait_ended(self, job: str, *, limit: float = 240) -> str:
        from tests.slurm.conftest import ENDED

        self.wait(f"job {job} to end", lambda: self.cluster.state(job) in ENDED, limit=limit)
        return self.cluster.state(job)

    def assert_completed(self, job: str, *, limit: float = 240) -> None:
        """The job's last state, with all that is known of it where it is another one."""
        state = self.wait_ended(job, limit=limit)
        assert state == "COMPLETED", (
            f"job {job}: {self.cluster.job(job)}\n{self.logs()}\n{self.cluster.story()}"
        )

    def rank(self, name: str, rank: int) -> psutil.Process:
        return psutil.Process(self.run(name).ranks()[rank][1])

    def kill(self, name: str, rank: int) -> None:
        self.rank(name, rank).send_signal(signal.SIGKILL)

    def hold(self, name: str) -> psutil.Process:
        """Stop one rank, so that the run cannot end before a signal has reached it (`until_told`)."""
        process = self.rank(name, 1)
        process.suspend()
        return process

    def until_told(self, process: psutil.Process) -> None:
        """Until a signal waits for a held rank, which then goes on."""
        self.wait("a signal", lambda: not stopped(process) or pending(process), limit=50)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()

    def assert_nobody_left(self, name: str) -> None:
        path = str(self.run(name).path)
        self.wait(f"no process of {name}", lambda: not self.cluster.processes(path), limit=30)

    def assert_like(self, reference: RunDir, name: str) -> None:
        """The run is finished and equals the undisturbed one bit for bit; nobody is left of it."""
        run = self.run(name)
        assert run.status()["state"] == "finished", f"{run.status()}\n{self.logs()}"
        assert differences(reference.path, run.path) == []
        self.assert_nobody_left(name)

    def logs(self) -> str:
        """The ends of all logs of the folder."""
        files = [*self.folder.glob("batch-*.out"), *self.folder.glob("runs/*/logs/rank*.log")]
        files += self.folder.glob("runs/*/submitit/*_0_log.out")
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-1500:]}" for file in sorted(files))


def stopped(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def pending(process: psutil.Process) -> bool:
    """Whether a signal was sent to a stopped process, which has not seen it."""
    with contextlib.suppress(FileNotFoundError):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return any(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))
    return True


def copy_checkout(folder: Path) -> Path:
    """A checkout that a test may edit."""
    for part in KEPT:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / part, folder / part)
    return folder


def preempt(field: Field, job: str) -> None:
    """A job of the higher partition wants the nodes of `job`, for a moment; it waits in the queue."""
    nodes = field.cluster.job(job)["NodeList"]
    asked = ["sbatch", "--partition=main", f"--nodelist={nodes}", "--exclusive", "--output=/dev/null"]
    field.cluster.run(*asked, "--wrap=true")


def signal_time(field: Field, job: str) -> None:
    """Cut the job's time limit, so that the controller sends the signal that it was asked for."""
    field.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=2")


def give_time(field: Field, job: str) -> None:
    field.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=30")


def pid_of_daemon(cluster: Cluster, node: str) -> int:
    return int((cluster.folder / f"{node}.pid").read_text())


def kill_daemon(cluster: Cluster, node: str) -> None:
    os.kill(pid_of_daemon(cluster, node), signal.SIGKILL)
