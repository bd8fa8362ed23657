"""Start ranks on this machine, by submitit's local executor.

The job outlives the terminal: it has its own session, its output goes to RUN/logs, and its code is RUN/code.
"""

import os
from collections.abc import Mapping

from hpc.cluster import slurm_env
from hpc.runs.run_dir import RunDir
from launch.job import FOREIGN, VISIBLE, Job

FOREVER = 60 * 24 * 3650  # minutes: the local executor requires a limit


def environment(run: RunDir) -> Mapping[str, str]:
    """Return the variables of the ranks: the run's code first on the path, none of an enclosing job."""
    kept = {name: value for name, value in slurm_env.outside(os.environ).items() if name not in FOREIGN}
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        kept[VISIBLE] = os.environ["CUDA_VISIBLE_DEVICES"]
    rest = os.environ.get("PYTHONPATH")
    return kept | {"PYTHONPATH": os.pathsep.join([str(run.code), *([rest] if rest else [])])}


def start_ranks(run: RunDir, procs: int) -> int:
    """Start the ranks; return the pid of the process that supervises them.

    A child with a session of its own submits, so that closing the terminal does not end them.
    """
    for left in run.path.glob(".rendezvous-*"):  # left by a start that died; this process has the lock
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
        except BaseException as error:  # a fork must never return into the caller's code
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
