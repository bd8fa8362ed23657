"""A real SLURM for the tests of this folder: `slurm/sandbox.sh`, once for the whole session.

Where SLURM is missing the tests are skipped with that reason; with ROSTRO_REQUIRE_SLURM=1 (CI) they fail.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = ROOT / "slurm" / "sandbox.sh"
POLL = 0.25  # seconds
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")


def require_slurm() -> None:
    """Skip where SLURM's daemons are not installed; fail where they must be."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [
        name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name, path=path)
    ]
    if missing and os.environ.get("ROSTRO_REQUIRE_SLURM") == "1":
        pytest.fail(
            f"{', '.join(missing)} must be installed: apt-get install slurmctld slurmd slurm-client munge"
        )
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not installed: apt-get install slurmctld slurmd slurm-client munge"
        )


class Cluster:
    """One sandbox: a SLURM of its own, and the environment in which its commands work."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        settings = {"PORT": 28000 + os.getpid() % 200 * 20, **settings}
        given = os.environ | {name: str(value) for name, value in settings.items()}
        done = subprocess.run(
            ["bash", SANDBOX, "up", folder], env=given, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
        left_out = ("SLURM_", "SUBMITIT_", "ROSTRO_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.env |= {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        self.env["XDG_STATE_HOME"] = str(folder.with_name(f"{folder.name}-state"))

    def run(self, *command: object, cwd: Path = ROOT, timeout: float = 60, **variables: str) -> str:
        """Output of a command that must succeed."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=self.env | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.story()}"
        return done.stdout

    def job(self, job: object) -> dict[str, str]:
        """The fields of `scontrol show job`; of an array index write `123_1`."""
        text = self.run("scontrol", "-o", "show", "job", job).splitlines()[0]
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, job: object) -> str:
        return self.job(job)["JobState"]

    def wait(self, what: str, true: Callable[[], object], *, limit: float = 120) -> None:
        """Poll until `true()`; fail with the cluster's story after `limit` seconds."""
        end = time.monotonic() + limit
        while not true():
            assert time.monotonic() < end, f"{what}: not within {limit} s\n{self.story()}"
            time.sleep(POLL)

    def wait_ended(self, job: object, *, limit: float = 180) -> str:
        """The state in which a job ended; a requeued one has not."""
        self.wait(f"job {job} to end", lambda: self.state(job) in ENDED, limit=limit)
        return self.state(job)

    def processes(self, mark: str) -> list[psutil.Process]:
        """Living processes whose command line holds `mark`, such as a run's directory."""
        found = []
        for process in psutil.process_iter():
            try:
                if mark in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if process.pid != os.getpid()]

    def story(self) -> str:
        """What a reader needs after a failure: jobs, and the end of the controller's log."""
        parts = []
        for command in (["squeue", "-a"], ["sinfo", "-N"], ["scontrol", "show", "job"]):
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=30)
            parts.append(f"$ {' '.join(command)}\n{done.stdout[-4000:]}{done.stderr}")
        log = self.folder / "log" / "slurmctld.log"
        if log.exists():
            parts.append("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
        return "\n".join(parts)

    def down(self) -> None:
        subprocess.run(["bash", SANDBOX, "down", self.folder], check=True, timeout=120)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_slurm()
    folder = Path(tmp_path_factory.mktemp("slurm")) / "c"
    found = Cluster(folder, CPUS=8, GRACE_TIME=20, SLURMD_TIMEOUT=12)
    yield found
    found.down()
    assert not found.processes(str(folder))
