"""What a rank runs, and how ranks are started on this machine. The pickled object holds a path and nothing else.
How they are started on a cluster: `launch/start/slurm.py`.

The job outlives the terminal: it has its own session, its output goes to RUN/logs, and its code is RUN/code.
"""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from data_shards.errors import UserError
from hpc.cluster import slurm_env
from hpc.config.schema import Config
from hpc.runs import requeue
from hpc.runs.run_dir import RunDir

FOREIGN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "ROSTRO_ATTEMPT",
)  # of another job
VISIBLE = "ROSTRO_VISIBLE_DEVICES"  # CUDA_VISIBLE_DEVICES of the terminal, which submitit would hide
FOREVER = 60 * 24 * 3650  # minutes: the local executor wants a limit


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
        place = slurm_env.place()
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


def environment(run: RunDir) -> Mapping[str, str]:
    """Variables of the ranks: their code first on the path, nothing of another job's place."""
    kept = {name: value for name, value in slurm_env.outside(os.environ).items() if name not in FOREIGN}
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        kept[VISIBLE] = os.environ["CUDA_VISIBLE_DEVICES"]
    rest = os.environ.get("PYTHONPATH")
    return kept | {"PYTHONPATH": os.pathsep.join([str(run.code), *([rest] if rest else [])])}


def start(run: RunDir, procs: int) -> int:
    """Start the ranks by submitit's local executor; the pid of the process that watches over them.

    A child with a session of its own submits, so that closing the terminal ends nothing.
    """
    for left in run.path.glob(".rendezvous-*"):  # of a start that died; the lock is ours
        left.unlink()
    run.submitit.mkdir(exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            os.write(writer, str(_submit(run, procs)).encode())
            code = 0
        except BaseException as error:  # this is a fork: nothing may run on into the caller's code
            os.write(writer, f"error: {error}".encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer.isdigit():
        raise RuntimeError(f"submitit could not start the ranks of {run.path}: {answer or 'no answer'}")
    return int(answer)


def _submit(run: RunDir, procs: int) -> int:
    os.setsid()
    with open(run.submitit / "controller.log", "a") as log, open(os.devnull) as nothing:
        for stream, file in ((0, nothing), (1, log), (2, log)):
            os.dup2(file.fileno(), stream)
    os.chdir(run.code)
    variables = environment(run)
    os.environ.clear()
    os.environ.update(variables)
    import submitit

    executor = submitit.LocalExecutor(folder=run.submitit)
    executor.update_parameters(tasks_per_node=procs, timeout_min=FOREVER)
    return int(executor.submit(Job(str(run.path))).job_id)


def exit_code(run: RunDir, job: int, procs: int) -> int:
    """The worst exit code of the ranks of an ended job; a rank that left no answer was killed: 1."""
    import pickle

    codes = []
    for rank in range(procs):
        answer = run.submitit / f"{job}_{rank}_result.pkl"
        kind, value = pickle.loads(answer.read_bytes()) if answer.exists() else ("killed", 1)
        codes.append(int(value) if kind == "success" else 1)
    return max(codes)
