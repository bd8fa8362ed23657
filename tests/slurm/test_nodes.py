"""A node that dies: a job of 4 nodes waits until it is back, one that may goes on with the other three."""

import contextlib

import psutil
import pytest

from launch.audit.compare import elastic_differences
from tests.slurm.conftest import SANDBOX, Cluster
from tests.slurm.jobs import Field, kill_daemon
from tests.support.sets import pack_set

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
TOLERANCE = 1e-3  # relative distance of the weights when the number of ranks changes: docs/resume.md
GROUPS = {
    "norm_stats": "group",
    "norm_group": 4,
    "batch": 48,
    "images": 1920,
    "save.every": 144,
    "log.every": 144,
}


@pytest.fixture(scope="module")
def field(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("nodes")
    return Field(cluster, folder, pack_set(folder / "set", identities=40, each=6))


def test_a_dead_node_requeues_its_jobs_on_four_nodes_and_on_three(field: Field) -> None:
    whole = field.submit("undisturbed", **GROUPS)
    field.assert_completed(whole)
    four = field.submit("four", **GROUPS)
    three = field.sbatch("--nodes=4", name="three", **GROUPS)
    try:
        field.wait_clock("four", 288)
        field.wait_clock("three", 288)
        ranks = [field.rank(name, 3) for name in ("four", "three")]
        steps = [above for rank in ranks for above in rank.parents() if above.name() == "slurmstepd"]
        kill_daemon(field.cluster, "n3")  # whose ranks live on: nobody can end them but themselves
        field.cluster.run("scontrol", "update", "NodeName=n3", "State=DOWN", "Reason=killed")
        for job in (four, three):
            field.wait_restart(job, 1)
        field.cluster.run("scontrol", "update", f"JobId={three}", "NumNodes=3", "NumTasks=3")
        field.wait("three nodes", lambda: field.cluster.state(three) == "RUNNING", limit=60)
        assert field.cluster.job(three)["NumNodes"] == "3"
        assert field.cluster.state(four) == "PENDING"
        field.wait("the ranks of n3 to end", lambda: not any(map(psutil.Process.is_running, ranks)), limit=60)
        for step in steps:  # which a node without power has not: SLURM would end the job's new step with them
            with contextlib.suppress(psutil.NoSuchProcess):
                step.kill()
    finally:
        field.cluster.run("bash", SANDBOX, "up", field.cluster.folder)
    for job in (four, three):
        field.assert_completed(job)
        assert field.restarts(job) == 1
    reference = field.run("undisturbed")
    field.assert_like(reference, "four")
    field.assert_nobody_left("three")
    assert field.run("three").config().nodes == 3
    wrong, distance = elastic_differences(reference.path, field.run("three").path, TOLERANCE)
    assert wrong == []
    assert 0 < distance <= TOLERANCE
