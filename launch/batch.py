"""What `slurm/job.sh` calls: `start` makes or finds the run directory of this job, `end` says what comes after it.

    python -m launch.batch start key=value ...     prints shell lines: RUN=..., then what must happen before srun
    python -m launch.batch end RUN EXIT_CODE       0: the job is over; 10: requeue it (the script does); else: failed

A requeue finds its run by the job's id in runs/.jobs and resolves nothing: the words are not read again.
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from data_shards.errors import UserError
from hpc import ledger, requeue, slurm
from hpc.config import Config, save_config
from hpc.config_check import check
from hpc.rundir import RunDir

AGAIN = 10  # exit code of `end`: into the queue once more
STOPPED = 11  # exit code of `start`: nothing is left to be done
ONE_OFF = (
    "wait",
    "dry_run",
    "prepare",
    "after",
    "cluster",
    "hours",
)  # keys of a submission, which sbatch made


def main(argv: Sequence[str]) -> int:
    what, words = (argv[0], list(argv[1:])) if argv else ("", [])
    if not slurm.job_id():
        raise UserError("this is no job: type sbatch slurm/siamese.sh key=value, or salloc first")
    if what == "start":
        return start(words)
    if what == "end" and len(words) == 2:
        return end(RunDir(words[0]), int(words[1]))
    raise UserError("usage: python -m launch.batch start key=value ... | end RUN EXIT_CODE")


def start(words: Sequence[str]) -> int:
    """The run of this job, made at its first start. Prints what the batch script evaluates."""
    job, runs = slurm.job_id(), Path(_value(words, "runs") or "runs").absolute()
    binding = runs / ".jobs" / job
    if slurm.restart_count() and binding.exists():
        run = RunDir(runs / binding.read_text().strip())
        if run.stop_file.exists():
            print(f"run {run.name} was asked to stop", file=sys.stderr)
            return STOPPED
        _adapt(run)
    else:
        run = _make(words)
        binding.parent.mkdir(exist_ok=True)
        binding.write_text(f"{run.name}\n")
        requeue.forget(run)
        run.take(job=job)
        run.give_to_job(job)
    config = run.config()
    why = requeue.stuck(run, config.cluster.attempts)
    if why:
        requeue.failed(run, why)
        raise UserError(why)
    requeue.begin(run)
    print("\n".join(shell_lines(run, config)))
    return 0


def shell_lines(run: RunDir, config: Config) -> list[str]:
    """Variables and lines for the batch script; RANKS are srun's options."""
    from launch.slurm import program, setup_lines

    options = ["--kill-on-bad-exit=1", f"--ntasks-per-node={config.procs}"]
    options += [f"--nodes={config.nodes}", f"--ntasks={config.nodes * config.procs}"]
    if os.environ.get("SLURM_CPUS_PER_TASK"):
        options.append(f"--cpus-per-task={os.environ['SLURM_CPUS_PER_TASK']}")
    return [
        f"RUN={shlex.quote(str(run.path))}",
        f"RANKS={shlex.quote(' '.join(options))}",
        f"PROGRAM={shlex.quote(program(run, config))}",
        *setup_lines(run, config),
    ]


def _value(words: Sequence[str], key: str) -> str:
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{key}=")), "")


def _make(words: Sequence[str]) -> RunDir:
    """Resolve the words and make the run directory, with the ranks that the allocation has."""
    from launch import submit

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
    return submit.prepare([*words, f"nodes={nodes}", f"procs={procs}", "cluster=slurm", *_same_place()])


def _allocation(words: Sequence[str]) -> tuple[int, int]:
    """(nodes, ranks of each) of the allocation; UserError where the words say something else."""
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


def _same_place() -> list[str]:
    """What sbatch was told, so that `rostro resume` asks for the same."""
    known = {"partition": "SLURM_JOB_PARTITION", "account": "SLURM_JOB_ACCOUNT", "qos": "SLURM_JOB_QOS"}
    words = [f"cluster.{key}={os.environ[name]}" for key, name in known.items() if os.environ.get(name)]
    info = slurm.job_info(slurm.job_id())
    limit = _hours(info.get("TimeLimit", ""))
    return [*words, *([f"hours={limit}"] if limit else [])]


def _hours(text: str) -> float:
    """`1-02:30:00` in hours; 0 for `UNLIMITED` and the like."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in (*parts, days or "0")):
        return 0.0
    hours, minutes, seconds = map(int, parts)
    return round(24 * int(days or 0) + hours + minutes / 60 + seconds / 3600, 4)


def _adapt(run: RunDir) -> None:
    """The run's config on the nodes that the requeued job has now: the one thing that may differ."""
    config, nodes = run.config(), int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes != config.nodes:
        print(f"run {run.name} goes on with {nodes} nodes instead of {config.nodes}", file=sys.stderr)
        config = dataclasses.replace(config, nodes=nodes)
        check(config)
        save_config(config, run.config_file)


def end(run: RunDir, code: int) -> int:
    """Judge the end of the ranks: what the batch script does next."""
    ledger.ended(run)
    job, attempts = slurm.job_id(), run.config().cluster.attempts
    queued = slurm.job_info(job).get("BatchFlag", "1") != "0"  # in an salloc nobody can requeue
    again, why = requeue.wanted(
        run, crashed=code != 0, job=job, restart=slurm.restart_count(), attempts=attempts
    )
    if not queued:
        run.give_to_job("")
        if again:
            print(f"to go on: rostro resume {run.name} runs={run.path.parent}", file=sys.stderr)
        return code
    if again:
        return AGAIN
    if why:
        requeue.failed(run, why)
        print(f"error: {why}", file=sys.stderr)
        return code or 1
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
