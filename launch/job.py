"""What a rank runs. The pickled object holds a path and nothing else. Its name and place are part of every pickle.

How ranks are started: `launch/start/local.py` on this machine, `launch/start/slurm.py` on a cluster.
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

# Variables of another job.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "ROSTRO_ATTEMPT")
VISIBLE = "ROSTRO_VISIBLE_DEVICES"  # CUDA_VISIBLE_DEVICES of the terminal, which submitit would hide


class Job:
    """The pickled call of one rank: train the run in `path`. Returns the rank's exit code."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> int:
        run = RunDir(self.path)
        logging.getLogger("submitit").setLevel(logging.ERROR)  # its remarks are no part of a training's log
        if "SUBMITIT_LOCAL_GLOBALID" not in os.environ:
            return self._under_slurm(run)
        self._log_to(run.log(int(os.environ["SUBMITIT_LOCAL_GLOBALID"])))
        self._share_machine(int(os.environ["SUBMITIT_LOCAL_NTASKS"]))
        return self._train()

    def _under_slurm(self, run: RunDir) -> int:
        """As `srun` starts it: an exit code that is seen, and rank 0 as the owner of the requeue."""
        place = slurm_env.rank_from_env()
        if place is None:
            raise RuntimeError("this job was made for srun: `rostro resume` starts its run")
        self._log_to(run.log(place[0]))
        if place[0] == 0:
            self._begin(run)
        code = self._train()
        if code:
            sys.exit(code)  # srun ends the other ranks
        if (
            place[0] == 0 and not run.config().cluster.container
        ):  # else the batch script: launch/start/slurm.py
            self._go_on(run)
        return code

    def _begin(self, run: RunDir) -> None:
        """Count this start. It ends here where starts that SLURM itself repeats bring nothing, or too early."""
        config = run.config()
        why = requeue.stuck(run, config.cluster.attempts)
        if not why and config.after and not slurm_env.restart_count():
            why = not_yet(config)
        if why:
            run.lock.acquire(job=slurm_env.job_id())
            requeue.failed(run, why)
            run.lock.release()
            sys.exit(f"error: {why}")
        requeue.begin(run)

    def _go_on(self, run: RunDir) -> None:
        """All ranks have saved and left in order: back into the queue where the run is to go on."""
        job, attempts = slurm_env.job_id(), run.config().cluster.attempts
        again, why = requeue.wanted(
            run, crashed=False, job=job, restart=slurm_env.restart_count(), attempts=attempts
        )
        if again and not requeue.requeue(job):
            why = f"SLURM refused `scontrol requeue {job}`: `rostro resume {run.name}` goes on"
        if why:
            requeue.failed(run, why)
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
        """Before torch is loaded: one thread a rank where ranks share the cores; the terminal's GPUs."""
        if ranks > 1:
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        visible = os.environ.pop(VISIBLE, None)
        if visible is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def not_yet(config: Config) -> str:
    """Why a run that waited for `after=RUN` must not start; empty where it may. A stopped run's job ends well, too."""
    try:
        before = RunDir.open(config.after, runs=config.runs)
    except UserError:  # the number of a job: SLURM knows no more of it
        return ""
    state = before.status()["state"]
    if state == "finished":
        return ""
    return (
        f"after={config.after}: that run is {state}: `rostro resume {config.after}`, and when it has finished "
        f"`rostro resume {config.name}`"
    )
