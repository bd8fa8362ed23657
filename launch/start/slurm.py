"""Submit a run as a SLURM job through submitit: the options of sbatch, the submission, the dependency.

The job holds the run's path and nothing else, so SLURM may start the same pickle again. Ranks:
`launch/job.py`.
"""

import contextlib
import io
import math
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from data_shards.errors import UserError
from hpc.cluster import slurm, slurm_env
from hpc.config.schema import Config
from hpc.config.text import VARIABLE
from hpc.config.types import shown
from hpc.runs.ownership import SUBMITTING
from hpc.runs.requeue import REQUEUE_CODE
from hpc.runs.run_dir import RunDir
from launch import job
from launch.start import forecast
from launch.start.shell import Variable, Word, joined, module_lines, quoted

# Minutes: rounding an hour of four digits must not exceed the partition's limit by a minute.
ROUNDED = 0.01
NO_SLURM = (
    "cluster=slurm: {why}: type it on a login node of the cluster, or cluster=local for this machine "
    "(`slurm/sandbox.sh up DIR` starts a SLURM of your own)"
)


def chosen_cluster(config: Config) -> str:
    """Return `slurm` or `local`, to decide cluster=auto. UserError if cluster=slurm is impossible."""
    import shutil

    name = config.cluster.name
    if name == "local" or (name == "auto" and not slurm.available()):
        if config.nodes > 1:
            raise UserError(
                f"nodes={config.nodes}, but no SLURM answers here: type it on a login node of the cluster, "
                "or nodes=1 procs=RANKS"
            )
        return "local"
    if shutil.which("sbatch") is None:
        raise UserError(NO_SLURM.format(why="there is no sbatch on the path"))
    if name == "slurm" and not slurm.answers():
        raise UserError(NO_SLURM.format(why="`scontrol ping` says that no controller is up"))
    return "slurm"


def dependency(after: str, runs: str) -> str:
    """Return sbatch's --dependency for `after=RUN` or `after=JOB`; empty if that run has finished already."""
    if not after:
        return ""
    if (
        re.fullmatch(r"[0-9]+(_[0-9]+)?", after)
        and not (RunDir(os.path.join(runs, after)).config_file).exists()
    ):
        return f"afterok:{after}"
    try:
        run = RunDir.open(after, runs=runs)
    except UserError as error:
        raise UserError(f"after={after}: {error}; leave after= out to wait for nothing") from None
    if run.status()["state"] == "finished":
        return ""
    if not run.ownership.job() or not run.ownership.in_use():
        raise UserError(
            f"after={after}: that run is {run.status()['state']} and no job of it is left: type "
            f"`rostro resume {after}` first, or leave after= out"
        )
    return f"afterok:{run.ownership.job()}"


def setup_lines(run: RunDir, config: Config) -> list[str]:
    """Return the shell lines before the ranks: the site's modules and lines, the run's code on the path."""
    code = quoted(str(run.code))
    return [
        *module_lines(config.cluster.modules),
        f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}",
        *config.cluster.setup,
        f"cd {code}",
    ]


def program(run: RunDir, config: Config) -> list[Word]:
    """Return the Python that runs a rank as words of a shell: this one, or the container's."""
    image = config.cluster.container
    if not image:
        return [sys.executable]
    data = (config.data.train, config.data.val, config.data.eval)
    folders = {str(run.path.parent), *filter(None, data)}
    words: list[Word] = ["apptainer", "exec", *(["--nv"] if config.gpus else [])]
    for folder in sorted(filter(os.path.isabs, folders)):
        words += ["--bind", _bindable(folder)]
    # The first part of data.stage exists on every node: /scratch, or $TMPDIR, which the node expands.
    stage = re.match(rf"\$\{{?({VARIABLE})|/+[^/]+", config.data.stage, re.ASCII)
    if stage:
        words += ["--bind", Variable(stage[1]) if stage[1] else _bindable(stage[0])]
    return [*words, image, "python3"]


def _bindable(folder: str) -> str:
    """Return the folder as `--bind` takes it; UserError if it would be read as several."""
    for mark in ":,":
        if mark in folder:
            raise UserError(
                f"{folder} contains {mark}, which separates folders for Apptainer: use another folder, or "
                "leave cluster.container out"
            )
    return folder


def preflight(config: Config) -> None:
    """Raise UserError if the job of a run that does not exist yet could not be written or queued."""
    dependency(config.after, config.runs)
    run = RunDir(os.path.join(config.runs, config.name or "run"))
    joined(program(run, config))
    setup_lines(run, config)


def owner_lines(run: RunDir, config: Config) -> list[str]:
    """Return the batch lines that requeue a job with a container, whose image has no scontrol; else none."""
    if not config.cluster.container:
        return []
    path, python = f"PYTHONPATH={quoted(str(run.code))} PYTHONSAFEPATH=1", quoted(sys.executable)
    return [
        "at_end() {",
        "    local code=$?",
        "    [ $code -eq 0 ] || exit $code",
        f"    {path} {python} -m launch.batch end {quoted(str(run.path))} 0",
        f"    code=$?; [ $code -eq {REQUEUE_CODE} ] || exit $code",
        '    scontrol requeue "$SLURM_JOB_ID" && sleep 120 # SLURM ends this script',
        "    exit 1",
        "}",
        "trap at_end EXIT",
        "trap : TERM # the ranks save first",
    ]


def parameters(run: RunDir, config: Config) -> dict[str, Any]:
    """Return the parameters of submitit's executor."""
    cluster = config.cluster
    options: dict[str, Any] = {
        "job_name": run.name,
        "nodes": config.nodes,
        "ntasks_per_node": config.procs,
        "time": max(1, math.ceil(config.hours * 60 - ROUNDED)),
        "signal_delay_s": cluster.warning,
        "srun_args": ["--kill-on-bad-exit=1"],
        "setup": [*setup_lines(run, config), *owner_lines(run, config)],
        "stderr_to_stdout": True,
    }
    if config.gpus:
        options["gpus_per_node"] = config.gpus
    if cluster.cpus:
        options["cpus_per_task"] = cluster.cpus
        options["srun_args"].append(f"--cpus-per-task={cluster.cpus}")  # srun does not take it from sbatch
    if cluster.mem_gb:
        options["mem"] = f"{math.ceil(cluster.mem_gb * 1024)}MB"
    for key in ("partition", "account", "qos", "constraint"):
        if getattr(cluster, key):
            options[key] = getattr(cluster, key)
    depends = dependency(config.after, config.runs)
    if depends:
        options["dependency"] = depends
    options["additional_parameters"] = {"requeue": True, **cluster.sbatch}
    return options


def executor(run: RunDir, config: Config) -> Any:
    """Return submitit's executor of this run."""
    import submitit

    made = submitit.SlurmExecutor(folder=run.submitit, python=joined(program(run, config)))
    made.update_parameters(**parameters(run, config))
    return made


def sbatch_text(run: RunDir, config: Config) -> str:
    """Return the script that `submit` passes to sbatch."""
    made = executor(run, config)
    return str(made._make_submission_file_text(made._submitit_command_str, "dry_run"))


def allocations(config: Config, images_left: int, rate: float) -> int:
    """Return how many allocations of `hours` the images need at `rate` images/s; the warning time is lost."""
    return max(1, math.ceil(images_left / rate / forecast.useful_seconds(config)))


def submit(run: RunDir, config: Config) -> str:
    """Queue the run and return the job's id. The caller owns the lock, which passes to the job."""
    run.submitit.mkdir(exist_ok=True)
    made = executor(run, config)
    # submitit repeats the messages of sbatch on stderr.
    with _variables(run), contextlib.redirect_stderr(io.StringIO()):
        try:
            queued = made.submit(job.Job(str(run.path)))
        except BaseException as error:
            _cancel_unknown(run)
            if not isinstance(error, Exception):
                raise
            lines = str(getattr(error, "output", "") or error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"sbatch refused the job: {shown(lines[-1])}: see cluster.* in `rostro submit --help`"
            ) from None
    number = str(queued.job_id)
    try:
        run.ownership.transfer_to_job(number)
    except BaseException:  # the disk is full: the queued job would find no run
        slurm.ask("scancel", number)
        raise
    return number


def _cancel_unknown(run: RunDir) -> None:
    """Cancel a job that SLURM may have queued although its number did not arrive: it would find no run."""
    queue = slurm.ask("squeue", "--me", "--noheader", "--format", "%A|%o") or ""
    for line in queue.splitlines():
        number, _, script = line.partition("|")
        if os.path.dirname(script.strip()) == str(run.submitit):
            slurm.ask("scancel", number.strip())


@contextlib.contextmanager
def _variables(run: RunDir) -> Iterator[None]:
    """Set the environment that sbatch passes to the job, without the enclosing job's variables."""
    before = dict(os.environ)
    kept = slurm_env.outside(before)
    for name in job.FOREIGN:
        kept.pop(name, None)
    os.environ.clear()
    os.environ.update(kept)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def submitting(run: RunDir) -> None:
    """Lock the run for a job that has no id yet."""
    run.ownership.acquire(job=SUBMITTING)
