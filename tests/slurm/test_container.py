"""Ranks in a container: the image has no SLURM, so the batch script must requeue the job."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import Cluster
from tests.slurm.jobs import Field, preempt
from tests.support.sets import pack_set

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# Runs the program as Apptainer does, where nothing of SLURM can be found.
APPTAINER = """#!/bin/bash
[ "$1" = exec ] || exit 9
shift
while [ "$1" != image.sif ]; do echo "$1" >>"$(dirname "$0")/options"; shift; done
[ "$2" = python3 ] || exit 9
shift 2
exec env PATH={inside} {python} "$@"
"""
# In place of the name service, which knows the nodes of a real cluster, and not those of the sandbox.
NAMES = """#!/usr/bin/bash
[[ " $* " = *" show node "* ]] && echo NodeAddr=127.0.0.1
"""


def test_a_run_in_a_container_that_is_preempted_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    field = Field(cluster, tmp_path / "f", pack_set(tmp_path / "set"))
    fake, names = tmp_path / "bin" / "apptainer", tmp_path / "inside" / "scontrol"
    for file, text in (
        (fake, APPTAINER.format(python=sys.executable, inside=names.parent)),
        (names, NAMES),
    ):
        file.parent.mkdir()
        file.write_text(text)
        file.chmod(0o755)
    more = {
        "cluster.container": "image.sif",
        "cluster.partition": "preempt",
        "data.stage": "$PLACE/sub",
        "images": 640,
    }
    variables = {"PATH": f"{fake.parent}:{cluster.env['PATH']}", "PLACE": str(tmp_path / "node")}
    job = field.submit("contained", nodes=2, variables=variables, **more)
    field.wait_clock("contained", 64)
    held = field.hold("contained")
    preempt(field, job)
    field.until_told(held)
    field.wait_restart(job, 1)
    field.assert_completed(job)
    assert field.run("contained").status()["state"] == "finished"
    assert shutil.which("scontrol", path=variables["PATH"])  # outside of the image
    options = (fake.parent / "options").read_text().splitlines()
    assert {str(field.folder / "runs"), str(field.shards / "train"), variables["PLACE"]} <= set(options)
    field.assert_nobody_left("contained")
