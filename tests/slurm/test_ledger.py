"""The account of time and the failed rank where SLURM gives the nodes: two runs lose rank 1 at a time."""

import json
import time

import pytest

from hpc.cluster import slurm
from hpc.runs import goodput
from tests.slurm.conftest import Cluster
from tests.slurm.jobs import Field, words
from tests.support.sets import pack_set

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
WHOLE = 2.0  # seconds: SLURM dates a start and an end in whole ones, and we see a requeue by polling


@pytest.fixture(scope="module")
def field(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("ledger")
    return Field(cluster, folder, pack_set(folder / "set"))


def test_losses_add_up_to_the_allocated_time(field: Field) -> None:
    """By sbatch: requeued after the loss. By submitit: the run fails and names the rank."""
    died = {"ROSTRO_FAULT": "step@640/1"}
    requeued = field.sbatch("--nodes=2", name="requeued", variables=died)
    asked = [*words(field.shards), "name=failed", "nodes=2", "cluster=slurm"]
    answer = field.rostro("submit", *asked, **died).stdout
    failed = next(line for line in answer.splitlines() if line.startswith("where")).split()[-1]
    field.wait("a start", lambda: field.cluster.state(requeued) == "RUNNING")
    first = slurm.started(field.cluster.job(requeued))
    field.wait_restart(requeued, 1)
    gone = time.time()
    field.assert_completed(requeued)
    info = field.cluster.job(requeued)
    allocated = gone - first + slurm.started(info, "EndTime") - slurm.started(info)
    found = goodput.summary(field.run("requeued"))
    spent = found["seconds"]
    assert found["starts"] == 2
    assert found["allocated"] == pytest.approx(allocated, rel=0.05, abs=WHOLE)
    assert sum(spent.values()) == pytest.approx(found["allocated"], rel=0.05)
    assert spent["redone"] > 0
    assert spent["startup"] > 1
    [left] = field.run("requeued").failures.glob(f"{requeued}.0.*-rank*.json")
    assert json.loads(left.read_text())["lost"]

    assert field.wait_ended(failed) == "FAILED"
    row = json.loads(field.rostro("status", "failed", "json=true").stdout)[0]
    assert (row["state"], row["slurm"], row["root_cause"]["rank"]) == ("failed", "FAILED", 1)
    assert row["message"].startswith("rank 1: it died without a word")
    info = field.cluster.job(failed)
    given = slurm.started(info, "EndTime") - slurm.started(info)
    assert row["allocated"] == pytest.approx(given, rel=0.05, abs=WHOLE)
    assert sum(row["seconds"].values()) == pytest.approx(row["allocated"], rel=0.05)
    log = field.run("failed").log(1)
    assert log.read_text() == ""  # killed without a word
    assert f"{log} is empty" in field.rostro("logs", "failed", "rank=guilty").stderr
    assert "rank 1 lost" not in field.rostro("logs", "failed", "rank=all").stdout
