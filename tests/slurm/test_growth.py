"""A StyleGAN of two nodes that is preempted in a fade ends with the weights of one that was left alone."""

import re

import pytest

from hpc.task import build_task
from tests.slurm.conftest import ROOT, Cluster
from tests.slurm.jobs import Field, preempt
from tests.support.sets import pack_set

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
# 8 pixels up to 64 images, then 16 pixels, which come in until 576
GROWTH = {"task.stable": 64, "task.fade": 512, "task.start": 8, "images": 640}
SMALL = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0")


@pytest.fixture(scope="module")
def field(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("growth")
    return Field(cluster, folder, pack_set(folder / "set", identities=8, each=4))


def test_a_run_that_is_preempted_in_a_fade_ends_as_one_that_is_not(field: Field) -> None:
    alone = field.sbatch(*SMALL, "--nodelist=n[2-3]", name="alone", job="stylegan", **GROWTH)
    job = field.sbatch(*SMALL, "--partition=preempt", name="preempted", job="stylegan", **GROWTH)
    field.wait_clock("preempted", 128)
    held = field.hold("preempted")
    preempt(field, job)
    field.until_told(held)
    field.wait_restart(job, 1)
    field.assert_completed(alone)
    field.assert_completed(job)
    assert field.restarts(job) == 1
    run = field.run("preempted")
    config = run.config()
    assert (config.nodes, config.procs, config.task["network"]) == (2, 1, "stylegan")
    said = (run.logs / "rank0.log").read_text()
    stopped = re.search(r"stopped by .* at ([\d,]+) images; saved", said)
    assert stopped, said
    assert 0 < build_task(config).fade(int(stopped[1].replace(",", ""))) < 1
    field.assert_like(field.run("alone"), "preempted")
    grids = sorted(path.name for path in (run.path / "samples" / "generated").iterdir())
    assert grids == ["000000000640.png"]


@pytest.mark.parametrize("job", ["stylegan", "progan"])
def test_the_script_alone_asks_for_what_a_node_has(cluster: Cluster, job: str) -> None:
    """Its own nodes, ranks and GPUs; SLURM answers when and where they would start."""
    done = cluster.run("bash", "-c", f"sbatch --test-only slurm/{job}.sh 2>&1", cwd=ROOT)
    assert re.search(r"to start at \S+ using 4 processors on nodes n\d", done), done
