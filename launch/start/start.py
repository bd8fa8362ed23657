"""Start the ranks of a run directory: on this machine, or as a job of SLURM."""

import shutil
from pathlib import Path
from shlex import quote

from hpc.cluster.slurm import answers
from hpc.config.schema import Config
from hpc.runs import requeue
from hpc.runs.run_dir import RunDir
from launch.start.undo import NewRun, OldRun


def start_run(run: RunDir, config: Config, before: NewRun | OldRun) -> int:
    """Start the ranks of a run directory, print where to look, and follow the run if `wait` is true.

    before: the state of the disk, restored if SLURM refuses the job
    """
    from launch.start import local

    requeue.forget_failures(run)
    if config.cluster.name == "slurm":
        return _queue(run, config, before)
    run.ownership.acquire()
    try:
        run.write_status(state="starting", images=config.images, pids={}, message="")
        pid = local.start_ranks(run, config.procs)
    except BaseException:
        run.write_status(state="failed", message="the ranks could not be started")
        run.ownership.release()
        raise
    run.ownership.transfer_to_process(pid)
    quiet = shutil.which("sbatch") and not answers()
    _say_where(run, f"this machine{' (sbatch is installed, but no SLURM answers)' if quiet else ''}")
    if not config.wait:
        return 0
    from launch.watch.follow import follow

    return follow(run, pid, config.procs)


def _queue(run: RunDir, config: Config, before: NewRun | OldRun) -> int:
    """Queue the run as a SLURM job; else like `start_run`."""
    from launch.start import slurm

    try:
        slurm.submitting(run)
        run.write_status(state="starting", images=config.images, pids={}, message="", asked=0)
        number = slurm.submit(run, config)
    except BaseException:
        before.undo()
        raise
    _say_where(run, f"SLURM job {number}")
    if not config.wait:
        return 0
    from launch.watch.follow import follow_job

    return follow_job(run, number)


def _say_where(run: RunDir, where: str) -> None:
    print(f"where        {where}")
    print(f"run          {run.path}")
    print(f"log          tail -F {quote(str(run.log(0)))}")
    print(f"TensorBoard  tensorboard --logdir {quote(str(run.path.parent))}")
    print(f"state        rostro status{_runs_word(run)}", flush=True)


def _runs_word(run: RunDir) -> str:
    return "" if run.path.parent == Path("runs").absolute() else f" runs={quote(str(run.path.parent))}"
