"""Ask the ranks of a run, or its job, to save and leave."""

import os
import signal

from hpc.cluster import slurm
from hpc.runs.processes import alive
from hpc.runs.run_dir import RunDir


def living_ranks(run: RunDir) -> list[int]:
    """Return the process ids of the run's ranks that live on this host."""
    return [place[1] for place in run.ranks().values() if alive(*place) is True]


def ask_to_stop(run: RunDir, controller: int | None = None) -> int:
    """Send SIGTERM to the ranks of this host, or to the process that starts them; return how many got it."""
    asked = 0
    for pid in living_ranks(run) or ([controller] if controller else []):
        try:
            os.kill(pid, signal.SIGTERM)
            asked += 1
        except ProcessLookupError:
            continue
    return asked


def ask_job_to_stop(run: RunDir, job: str) -> None:
    """Send SIGTERM to the ranks of a running job; cancel a queued one. It will not be requeued."""
    run.stop_file.touch()
    if slurm.job_state(job) in slurm.QUEUED:
        slurm.ask("scancel", job)
    else:
        slurm.ask("scancel", "--signal=TERM", job)
