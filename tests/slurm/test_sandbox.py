"""`slurm/sandbox.sh`: for root and a plain user, called twice, with wrong settings; nothing is left over."""

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.slurm.conftest import POLL, SANDBOX, Cluster, require_slurm

pytestmark = pytest.mark.slurm

PORT = 24000 + os.getpid() % 40 * 100 + 50
AS_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]  # `nobody` of Debian


@pytest.fixture
def plain() -> Iterator["Plain"]:
    """A user who is not root, with the script and a folder of his own."""
    require_slurm()
    user = Plain(Path(tempfile.mkdtemp(prefix="plain-")))
    yield user
    user.sandbox("down")
    shutil.rmtree(user.home)


class Plain:
    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "c"
        self.before: list[str] = []
        shutil.copy(SANDBOX, home)
        if os.getuid() == 0:
            os.chown(home, 65534, 65534)
            self.before = AS_USER

    def sandbox(self, what: str, **settings: object) -> subprocess.CompletedProcess[str]:
        return self.sh(f"bash sandbox.sh {what} c", **settings)

    def sh(self, line: str, **settings: object) -> subprocess.CompletedProcess[str]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        given |= {"HOME": str(self.home), "PORT": str(PORT), "NODES": "2"}
        given |= {name: str(value) for name, value in settings.items()}
        command = [*self.before, "bash", "-c", line]
        return subprocess.run(
            command,
            cwd=self.home,
            env=given,
            capture_output=True,
            text=True,
            timeout=90,
            stdin=subprocess.DEVNULL,
        )

    def inside(self, line: str) -> str:
        """Output of a line in the environment of the sandbox."""
        done = self.sh(f'eval "$(bash sandbox.sh env c)"; {line}')
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def living(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            line = shlex.join(process.cmdline())
            if mark in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(line)
        except psutil.Error:
            continue
    return found


def test_a_plain_user_starts_it_twice_runs_jobs_and_leaves_nothing_behind(plain: Plain) -> None:
    done = plain.sandbox("up")
    assert done.returncode == 0, done.stdout + done.stderr
    pids = {path.name: path.read_text() for path in plain.folder.glob("*.pid")}
    again = plain.sandbox("up")
    assert again.returncode == 0, again.stderr
    assert len(pids) == 3
    assert {path.name: path.read_text() for path in plain.folder.glob("*.pid")} == pids
    owner = "nobody" if os.getuid() == 0 else psutil.Process().username()
    assert plain.inside("srun --nodes=2 id -un").split() == [owner, owner]
    assert plain.inside("srun --gpus-per-node=2 printenv CUDA_VISIBLE_DEVICES").strip() == "0,1"
    assert "preempt" in plain.sandbox("status").stdout

    mark = f"{86400 + os.getpid()}.5"  # seconds that nobody else sleeps
    plain.inside(f'sbatch --partition=preempt --output=o --wrap "srun sleep {mark} & sleep {mark}"')
    end = time.monotonic() + 20
    while not living(f"sleep {mark}"):
        assert time.monotonic() < end, plain.inside("scontrol show job")
        time.sleep(POLL)
    # A node dies: nobody is left to end what runs on it.
    for name in ("n0", "n1"):
        plain.inside(f"kill -9 $(cat c/{name}.pid)")
    done = plain.sandbox("down")
    assert done.returncode == 0, done.stderr
    assert not plain.folder.exists()
    assert not living(f"sleep {mark}")
    assert not living(str(plain.folder))
    assert plain.sandbox("down").returncode == 0


def test_settings_that_slurm_refuses_leave_no_process_and_no_folder(plain: Plain) -> None:
    done = plain.sandbox("up", PREEMPT_MODE="PERHAPS")
    assert done.returncode == 1
    assert "error: slurmctld refused its settings" in done.stderr
    assert not plain.folder.exists()
    assert not living(str(plain.folder))


def test_down_removes_no_folder_that_up_did_not_make(plain: Plain) -> None:
    plain.sh("mkdir c; echo kept >c/file")
    done = plain.sandbox("down")
    assert done.returncode == 1
    assert "is no sandbox: nothing was removed" in done.stderr
    assert (plain.folder / "file").read_text() == "kept\n"
    assert plain.sandbox("env").returncode == 1
    shutil.rmtree(plain.folder)


def test_up_takes_no_folder_that_holds_files_of_others(plain: Plain) -> None:
    plain.sh("mkdir c; chmod 700 c; echo kept >c/file")
    for settings in ({}, {"PREEMPT_MODE": "PERHAPS"}):
        done = plain.sandbox("up", **settings)
        assert done.returncode == 1
        assert "holds other files: name a folder that is new or empty" in done.stderr
        assert [path.name for path in plain.folder.iterdir()] == ["file"]
    assert plain.folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(plain.folder)


def test_files_that_came_later_outlive_the_sandbox(plain: Plain) -> None:
    assert plain.sandbox("up").returncode == 0
    plain.sh("echo kept >c/job.out; echo '[1,2]' >c/nodes.pid")
    done = plain.sandbox("down")
    assert done.returncode == 0
    assert "is kept: it holds other files" in done.stderr
    assert sorted(path.name for path in plain.folder.iterdir()) == ["job.out", "nodes.pid"]
    assert not living(str(plain.folder))
    shutil.rmtree(plain.folder)


def test_a_word_that_is_not_known_says_what_is(plain: Plain) -> None:
    done = plain.sandbox("start")
    assert done.returncode == 1
    assert "start is not known" in done.stderr
    assert "up|env|status|down DIR" in done.stderr


def test_two_partitions_and_pretended_gpus(cluster: Cluster) -> None:
    parts = cluster.run("sinfo", "-h", "-o", "%P %D")
    assert parts.split() == ["main*", "4", "preempt", "4"]
    seen = cluster.run("srun", "--nodes=4", "--gpus-per-node=1", "printenv", "CUDA_VISIBLE_DEVICES")
    assert seen.split() == ["0"] * 4
