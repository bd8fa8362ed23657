"""docs/cluster.md as a new user follows it: every shell block, word for word and in order, on the sandbox."""

import subprocess
import sys
from pathlib import Path

import pytest

from hpc.runs.run_dir import RunDir
from tests.slurm.conftest import ROOT, Cluster
from tests.slurm.jobs import copy_checkout
from tests.test_docs import BLOCK

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RUNS = ("first", "third", "fourth", "seed-0", "seed-1")


def typed() -> str:
    """What the page tells to type. Only the installation was done before."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    blocks = "".join(text for language, text in BLOCK.findall(page) if language == "sh")
    assert blocks.startswith("make setup\n")
    return blocks.removeprefix("make setup\n")


def test_the_first_hour(cluster: Cluster, tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "rostro")
    if (Path(sys.prefix) / "bin" / "activate").exists():
        (checkout / ".venv").symlink_to(sys.prefix)
    else:
        pytest.fail(f"{sys.prefix} is no virtual environment: run the tests by `make test`")
    home = tmp_path / "home"
    home.mkdir()
    left_out = ("XDG_CONFIG_HOME", "ROSTRO_PYTHON", "VIRTUAL_ENV")
    env = {name: value for name, value in cluster.env.items() if name not in left_out}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-x", "-c", typed()],
        cwd=checkout,
        env=env | {"HOME": str(home), "PYTHONPATH": str(checkout), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=480,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{said}\n{cluster.story()}"
    assert "#SBATCH --partition=main" in done.stdout  # the site file, in the plan
    assert "#SBATCH --gpus-per-node=2" in done.stdout
    runs = {name: RunDir(checkout / "runs" / name) for name in RUNS}
    cluster.wait(
        "all runs to finish",
        lambda: all(run.status()["state"] == "finished" for run in runs.values()),
        limit=120,
    )
    assert runs["seed-1"].config().seed == 1
    assert runs["fourth"].config().nodes == runs["third"].config().nodes == 2
    second = RunDir(checkout / "runs" / "second")
    assert second.status()["state"] == "stopped"
    assert 0 < second.status()["clock"] < second.config().images
    cluster.wait("no process of them", lambda: not cluster.processes(str(checkout)), limit=60)
