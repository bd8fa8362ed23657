"""The Python part of `slurm/job.sh`: `start` makes or finds the run of this job, `end` says what is next.

    python -m launch.batch start key=value ...   print the run, the program of a rank, the lines before it
    python -m launch.batch end RUN EXIT_CODE     exit code 0: the job is over; 10: requeue it; else: failed
                                                 (third word: a signal that came before the ranks started)

A requeue finds its run by the file $ROSTRO_BINDING, which holds the run's path, and resolves nothing: the
words are not read again. `slurm/job.sh` names that file by the job, in a folder that depends on nothing else.
"""

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_shards.errors import UserError
from data_shards.files import MissingFile, read_json, read_text, write_bytes
from hpc.cluster import slurm, slurm_env
from hpc.cluster.signals import StopReason
from hpc.config.check import check
from hpc.config.parse import save_config
from hpc.config.schema import Config
from hpc.runs import goodput, requeue
from hpc.runs.requeue import REQUEUE_CODE
from hpc.runs.run_dir import RunDir

STOPPED = 11  # exit code of `start`: nothing is left to be done
BINDING_AGE = 7 * 24 * 3600  # seconds after which a binding without a run is removed
REASONS = {"INT": StopReason.REQUEST, "TERM": StopReason.REQUEST, "USR1": StopReason.TIME_LIMIT}
# Keys of a submission, which sbatch has made already.
ONE_OFF = ("wait", "dry_run", "prepare", "after", "cluster", "hours")


def main(argv: Sequence[str]) -> int:
    """Run `start` or `end`; return its exit code."""
    what, words = (argv[0], list(argv[1:])) if argv else ("", [])
    if not slurm_env.job_id():
        raise UserError("this is not a SLURM job: type sbatch slurm/JOB.sh key=value, or salloc first")
    if what == "start":
        return start(words)
    if what == "end" and len(words) in (2, 3):
        return end(RunDir(words[0]), int(words[1]), *words[2:])
    raise UserError("usage: python -m launch.batch start key=value ... | end RUN EXIT_CODE [INT|TERM|USR1]")


def start(words: Sequence[str]) -> int:
    """Make the run of this job, or find it at a requeue, and print what the batch script reads."""
    job, binding = slurm_env.job_id(), _binding()
    run = bound(binding, job) if slurm_env.restart_count() else None
    if run is None:
        run = _make(words, job, lambda path: bind(binding, path))
        try:
            requeue.count_start(run)
            print("\n".join(shell_lines(run, run.config())))
        except BaseException:  # no rank will start: free its name
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return 0
    _check_owner(run, job)
    if run.stop_file.exists():
        print(f"run {run.name} was asked to stop", file=sys.stderr)
        return STOPPED
    try:
        config = _adapted(run)
        why = requeue.stuck_reason(run, config.cluster.attempts)
        if why:
            raise UserError(why)
    except UserError as error:
        requeue.mark_failed(run, str(error))
        raise
    requeue.count_start(run)
    print("\n".join(shell_lines(run, config)))
    return 0


def _check_owner(run: RunDir, job: str) -> None:
    """Raise UserError if the run was resumed in another way: it no longer belongs to this job."""
    owner = run.ownership.read().get("job", job)
    if owner != job:
        now = f"job {owner}" if owner else "no job"
        raise UserError(f"run {run.name} belongs to {now} since it was resumed: job {job} is over")


def _binding() -> Path:
    """Return the file that holds the path of this job's run."""
    path = os.environ.get("ROSTRO_BINDING")
    if not path:
        raise UserError("ROSTRO_BINDING is not set: start the job by slurm/job.sh, which sets it")
    return Path(path)


def bind(binding: Path, run: Path) -> None:
    """Write the path of this job's run into its binding; remove old bindings of runs that are gone."""
    try:
        binding.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(binding, f"{run}\n".encode())
    except OSError as error:
        raise UserError(
            f"{binding} cannot be written ({error.strerror}): export XDG_STATE_HOME=FOLDER, one that all "
            "nodes see, then sbatch"
        ) from None
    for other in binding.parent.glob("[!.]*"):
        with contextlib.suppress(OSError):
            old = time.time() - other.stat().st_mtime > BINDING_AGE
            if old and not Path(other.read_text().strip()).exists():
                other.unlink()


def bound(binding: Path, job: str) -> RunDir | None:
    """Return the run that an earlier start of this job made (None = it was killed before)."""
    try:
        run = RunDir(read_text(binding, remedy="delete it").strip())
        state = read_json(run.git_file, {"job?": str}, remedy="restore it; `rostro submit` wrote it")
    except MissingFile:
        return None
    return run if state.get("job") == job else None


def shell_lines(run: RunDir, config: Config) -> list[str]:
    """Return what the batch script reads: the run, srun's options, a rank's program, the lines before it."""
    from launch.start.shell import plan_lines
    from launch.start.slurm import program, setup_lines

    options = ["--kill-on-bad-exit=1", f"--ntasks-per-node={config.procs}"]
    options += [f"--nodes={config.nodes}", f"--ntasks={config.nodes * config.procs}"]
    if os.environ.get("SLURM_CPUS_PER_TASK"):
        options.append(f"--cpus-per-task={os.environ['SLURM_CPUS_PER_TASK']}")
    return plan_lines(run.path, options, program(run, config), setup_lines(run, config))


def _value(words: Sequence[str], key: str) -> str:
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{key}=")), "")


def _make(words: Sequence[str], job: str, claim: Callable[[Path], None]) -> RunDir:
    """Resolve the words and make the run directory, with the ranks of the allocation."""
    from launch.start import create

    index = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    words = [word.replace("%a", index) for word in words] if index else list(words)
    if index and _value(words, "name") and not any("name=" in word and "%a" in word for word in sys.argv):
        words.append(f"name={_value(words, 'name')}-{index}")
    for key in ONE_OFF:
        given = _value(words, key)
        if given and given not in ("false", "slurm"):
            raise UserError(
                f"{key}={given} belongs to `rostro submit`: give sbatch its own option, or leave it out"
            )
    nodes, procs = _allocation(words)
    place = [f"nodes={nodes}", f"procs={procs}", "cluster=slurm", *_same_place(words)]
    return create.prepare([*words, *place], job=job, claim=claim)


def _allocation(words: Sequence[str]) -> tuple[int, int]:
    """Return (nodes, ranks of each) of the allocation; UserError if the words ask for other numbers."""
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    given = _value(words, "nodes")
    if given and given != str(nodes):
        raise UserError(
            f"nodes={given}, but the allocation has {nodes}: leave nodes= out, or type sbatch --nodes={given}"
        )
    procs, asked = _value(words, "procs"), os.environ.get("SLURM_NTASKS_PER_NODE")
    if procs and asked and procs != asked:
        raise UserError(
            f"procs={procs}, but the allocation has {asked} tasks a node: leave procs= out, or type "
            f"sbatch --ntasks-per-node={procs}"
        )
    return nodes, int(procs or asked or 1)


def _same_place(words: Sequence[str]) -> list[str]:
    """Return the options of sbatch as words, so that `rostro resume` asks for the same."""
    known = {"partition": "SLURM_JOB_PARTITION", "account": "SLURM_JOB_ACCOUNT", "qos": "SLURM_JOB_QOS"}
    known |= {"cpus": "SLURM_CPUS_PER_TASK"}
    words_of_job = [
        f"cluster.{key}={os.environ[name]}" for key, name in known.items() if os.environ.get(name)
    ]
    if os.environ.get("SLURM_MEM_PER_NODE"):
        words_of_job.append(f"cluster.mem_gb={int(os.environ['SLURM_MEM_PER_NODE']) / 1024:g}")
    limit = _hours(slurm.job_info(slurm_env.job_id()).get("TimeLimit", ""))
    return [*words_of_job, f"gpus={_gpus(words)}", *([f"hours={limit}"] if limit else [])]


def _gpus(words: Sequence[str]) -> int:
    """Return the GPUs of each node of the allocation; UserError if the words ask for another number."""
    asked = os.environ.get("SLURM_GPUS_ON_NODE") or os.environ.get("SLURM_GPUS_PER_NODE") or "0"
    number = re.search(r"\d+$", asked)  # of `a100:2` too
    count, given = int(number.group()) if number else 0, _value(words, "gpus")
    if given and given != str(count):
        raise UserError(
            f"gpus={given}, but the allocation has {count} a node: leave gpus= out, or type "
            f"sbatch --gpus-per-node={given}"
        )
    return count


def _hours(text: str) -> float:
    """Return `1-02:30:00` in hours; 0 for `UNLIMITED` and the like."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in (*parts, days or "0")):
        return 0.0
    hours, minutes, seconds = map(int, parts)
    return round(24 * int(days or 0) + hours + minutes / 60 + seconds / 3600, 4)


def _adapted(run: RunDir) -> Config:
    """Return the run's config on the nodes that the requeued job has now, which may be others than before."""
    config, nodes = run.config(), int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes == config.nodes:
        return config
    changed = dataclasses.replace(config, nodes=nodes)
    try:
        check(changed)
    except UserError as error:
        why = str(error).partition(": use ")[0]  # the remedy is for a new run
        raise UserError(
            f"its job has {nodes} nodes now instead of {config.nodes}: {why}: `rostro resume {run.name}` "
            f"asks for {config.nodes} nodes, nodes=... for others"
        ) from None
    print(f"run {run.name} resumes on {nodes} nodes instead of {config.nodes}", file=sys.stderr)
    save_config(changed, run.config_file)
    return changed


def end(run: RunDir, code: int, signal: str = "") -> int:
    """Judge the end of the ranks; return the exit code by which the batch script acts.

    signal: the signal that came before the ranks were started (empty = they ran)
    """
    job, attempts = slurm_env.job_id(), run.config().cluster.attempts
    _check_owner(run, job)
    goodput.ended(run)
    if signal:
        run.write_status(state="stopped", asked=REASONS[signal])
    queued = requeue.existing_job(job).get("BatchFlag", "1") != "0"  # an salloc cannot be requeued
    again, why = requeue.decision(
        run, crashed=code != 0, job=job, restart=slurm_env.restart_count(), attempts=attempts
    )
    if not queued:
        run.ownership.transfer_to_job("")
        if run.status()["state"] != "finished":
            print(
                f"to resume it: rostro resume {run.name} runs={shlex.quote(str(run.path.parent))}",
                file=sys.stderr,
            )
        return code
    if again:
        return REQUEUE_CODE
    if why:
        requeue.mark_failed(run, why)
        print(f"error: {why}", file=sys.stderr)
        return code or 1
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
