"""The script of the largest detector, at small sizes: trained under mosaics, preempted, resumed, finished."""

from pathlib import Path

import pytest

from tests.slurm.conftest import Cluster
from tests.slurm.jobs import Field, preempt
from tests.support.object_set import pack_objects

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_detector_by_sbatch_goes_on_after_a_preemption(cluster: Cluster, tmp_path: Path) -> None:
    shards = tmp_path / "faces"
    pack_objects(shards)
    field = Field(cluster, tmp_path, shards)
    small = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--partition=preempt")
    job = field.sbatch(*small, name="found", job="yolov5x_widerface", images=320)
    field.wait_clock("found", 64)
    held = field.hold("found")
    preempt(field, job)
    field.until_told(held)
    field.wait_restart(job, 1)
    field.assert_completed(job)
    assert field.restarts(job) == 1
    run = field.run("found")
    config, status = run.config(), run.status()
    assert (config.nodes, config.procs, config.task["kind"]) == (2, 1, "yolov5")
    assert (status["state"], status["clock"]) == ("finished", 320)
    assert "images; saved" in (run.logs / "rank0.log").read_text()
