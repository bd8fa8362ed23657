"""The call of one rank, as submitit pickles it: it holds a path and nothing else.

Its module and name are part of every pickle, so they never change. How ranks are started:
`launch/start/local.py` on this machine, `launch/start/slurm.py` on a cluster.
"""

import logging
import os
import sys
from pathlib import Path

from data_shards.errors import UserError
from hpc.cluster import slurm_env
from hpc.config.schema import Config
from hpc.runs import requeue
from hpc.runs.run_dir import RunDir

# Variables that the job in which a command is typed may have set.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "ROSTRO_ATTEMPT")
VISIBLE = "ROSTRO_VISIBLE_DEVICES"  # CUDA_VISIBLE_DEVICES of the terminal, which submitit overwrites


class Job:
    """The pickled call of one rank: train the run in `path`. Returns the rank's exit code."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> int:
        run = RunDir(self.path)
        logging.getLogger("submitit").setLevel(logging.ERROR)  # its remarks do not belong in a training log
        if "SUBMITIT_LOCAL_GLOBALID" not in os.environ:
            return self._under_slurm(run)
        self._log_to(run.log(int(os.environ["SUBMITIT_LOCAL_GLOBALID"])))
        self._share_machine(int(os.environ["SUBMITIT_LOCAL_NTASKS"]))
        return self._train()

    def _under_slurm(self, run: RunDir) -> int:
        """Run a rank that srun started: SLURM sees its exit code, and rank 0 owns the requeue."""
        place = slurm_env.rank_from_env()
        if place is None:
            raise RuntimeError("this job was made for srun: `rostro resume` starts its run")
        self._log_to(run.log(place[0]))
        if place[0] == 0:
            self._begin(run)
        code = self._train()
        if code:
            sys.exit(code)  # srun ends the other ranks
        # With a container the batch script requeues: owner_lines in launch/start/slurm.py.
        if place[0] == 0 and not run.config().cluster.container:
            self._requeue(run)
        return code

    def _begin(self, run: RunDir) -> None:
        """Count this start; end the job if its starts save nothing or its `after` has not finished."""
        config = run.config()
        why = requeue.stuck_reason(run, config.cluster.attempts)
        if not why and config.after and not slurm_env.restart_count():
            why = not_yet(config)
        if why:
            run.ownership.acquire(job=slurm_env.job_id())
            requeue.mark_failed(run, why)
            run.ownership.release()
            sys.exit(f"error: {why}")
        requeue.count_start(run)

    def _requeue(self, run: RunDir) -> None:
        """Put the job back into the queue if the run must resume; all ranks have saved and left in order."""
        job, attempts = slurm_env.job_id(), run.config().cluster.attempts
        again, why = requeue.decision(
            run, crashed=False, job=job, restart=slurm_env.restart_count(), attempts=attempts
        )
        if again and not requeue.requeue_job(job):
            why = f"SLURM refused `scontrol requeue {job}`: type `rostro resume {run.name}`"
        if why:
            requeue.mark_failed(run, why)
            sys.exit(f"error: {why}")

    def _train(self) -> int:
        from hpc.rank import main

        try:
            return main(self.path)
        except SystemExit as leaving:
            if isinstance(leaving.code, str):
                print(leaving.code, file=sys.stderr)
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _log_to(self, log: Path) -> None:
        """Send both streams, of libraries too, to the rank's log."""
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)

    def _share_machine(self, ranks: int) -> None:
        """Limit threads if ranks share the cores, and restore the terminal's GPUs, before torch is loaded."""
        if ranks > 1:
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        visible = os.environ.pop(VISIBLE, None)
        if visible is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def not_yet(config: Config) -> str:
    """Return why a run that waited for `after=RUN` must not start (empty = it may).

    The job of a stopped run ends well too, so SLURM starts the job that waits for it.
    """
    try:
        before = RunDir.open(config.after, runs=config.runs)
    except UserError:  # the number of a job that SLURM has forgotten
        return ""
    state = before.status()["state"]
    if state == "finished":
        return ""
    return (
        f"after={config.after}: that run is {state}: `rostro resume {config.after}`, and when it has "
        f"finished `rostro resume {config.name}`"
    )
