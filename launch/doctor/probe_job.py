"""`rostro doctor trial=true`: submit a job of a minute that tests what configuration files do not tell.

It tests whether the nodes see the runs' folder and this python, and whether signals reach the batch script
and the ranks. Its folder is beside the runs, and is removed with the job.
"""

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from data_shards.errors import UserError
from hpc.cluster import slurm
from launch.doctor.finding import HARMFUL, OK, Finding

SCRIPT = """#!/bin/bash
cd {folder} || exit 1
trap 'touch batch-signalled' USR1
srun --kill-on-bad-exit=1 bash -c '
    trap "touch rank-signalled-$SLURM_PROCID" USR1
    {python} -c "import sys" && touch "python-$SLURM_PROCID"
    hostname >rank-$SLURM_PROCID.part && mv rank-$SLURM_PROCID.part rank-$SLURM_PROCID
    for second in $(seq 90); do sleep 1 & wait $!; done' &
pid=$!
while kill -0 $pid 2>/dev/null; do wait $pid; done
"""
POLL = 0.5  # seconds
# Reasons of a waiting job that time rarely changes.
HOPELESS = ("Partition", "BadConstraints", "Assoc", "QOS", "Invalid")


def run(runs: Path, *, nodes: int, partition: str, queue: float) -> list[Finding]:
    """Submit the job, wait at most `queue` seconds until it runs, watch it, end it; return the findings."""
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".trial-", dir=runs)).absolute()
    job = ""
    try:
        script = folder / "job.sh"
        script.write_text(SCRIPT.format(folder=_quoted(folder), python=_quoted(sys.executable)))
        words = [
            "sbatch",
            "--parsable",
            f"--nodes={nodes}",
            "--ntasks-per-node=1",
            "--time=3",
            "--no-requeue",
        ]
        words += ["--job-name=rostro-doctor", f"--output={folder}/log", f"--chdir={folder}"]
        words += [f"--partition={partition}"] if partition else []
        job = (slurm.ask(*words, str(script), timeout=30) or "").strip().partition(";")[0]
        if not job:
            raise UserError(
                f"trial=true: sbatch refused a job of {nodes} nodes: try nodes=1 or partition=NAME, or "
                f"read its message: sbatch --nodes={nodes} --wrap=hostname"
            )
        return _watch(folder, job, nodes, queue)
    finally:
        if job:
            slurm.ask("scancel", job)
            _until(lambda: slurm.job_state(job) not in slurm.LIVE, 60)
        with contextlib.suppress(OSError):  # a node may still write its last line
            shutil.rmtree(folder)


def _quoted(path: Path | str) -> str:
    if "'" in str(path) or '"' in str(path):
        raise UserError(
            f"{path} contains a quote, which the trial job cannot use: choose another folder of runs"
        )
    return f'"{path}"'


def _until(true: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def _watch(folder: Path, job: str, nodes: int, queue: float) -> list[Finding]:
    def count(name: str) -> int:
        return len([path for path in folder.glob(f"{name}-*") if path.suffix != ".part"])

    def reason() -> str:
        return slurm.job_info(job).get("Reason", "unknown")

    def settled() -> bool:
        return slurm.job_state(job) not in slurm.QUEUED or reason().startswith(HOPELESS)

    if not _until(settled, queue) or slurm.job_state(job) in slurm.QUEUED:
        text = f"job {job} of {nodes} nodes does not start (reason {reason()})"
        return [
            Finding(HARMFUL, "trial", text, "fewer nodes=, another partition=, or wait longer: seconds=600")
        ]
    if not _until(lambda: count("rank") == nodes, 60):
        text = f"{count('rank')} of {nodes} nodes of job {job} wrote into {folder.parent}"
        return [
            Finding(
                HARMFUL, "trial", text, "runs=FOLDER on a file system that all nodes share and may write to"
            )
        ]
    found = [Finding(OK, "trial", f"job {job}: {nodes} nodes see {folder.parent}")]
    if count("python") == nodes:
        found.append(Finding(OK, "python", f"{sys.executable} runs on all of them"))
    else:
        text = f"{sys.executable} runs on {count('python')} of {nodes} nodes"
        found.append(Finding(HARMFUL, "python", text, "put the environment on a shared file system"))
    slurm.ask("scancel", "--batch", "--signal=USR1", job)
    slurm.ask("scancel", "--signal=USR1", job)
    ranks = _until(lambda: count("rank-signalled") == nodes, 20)
    batch = _until((folder / "batch-signalled").exists, 20)
    for what, reached in (("ranks", ranks), ("batch script", batch)):
        text = f"USR1 {'reaches' if reached else 'does not reach'} the {what}"
        advice = (
            ""
            if reached
            else "ask the admin which task prolog, job_submit or container plugin swallows signals"
        )
        found.append(Finding(OK if reached else HARMFUL, "signals", text, advice))
    return found
