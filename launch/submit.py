"""Start a training run: `python launch/submit.py task=siamese procs=2`, which is `rostro submit ...`.

Resolves the config, refuses what cannot work, makes the run directory, starts the ranks and returns. Nothing here
imports torch. Composition is in `launch/options/compose.py`, the plan in `launch/start/data.py`, the ranks in
`launch/job.py`.
"""

import dataclasses
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote

if __package__ in (
    None,
    "",
):  # run as a script from a checkout: this folder is on the path, its parent is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_shards.errors import UserError
from data_shards.files import write_json
from hpc.cluster.slurm import answers
from hpc.config.check import check, check_values
from hpc.config.parse import save_config
from hpc.config.schema import Config
from hpc.runs import requeue, restart
from hpc.runs.run_dir import RunDir
from launch.start.undo import NewFolders, NewRun, OldRun

HYDRA_FLAGS = ("--hydra-help", "-sc", "--shell-completion", "--cfg", "-c", "--info", "-i")
OWN_HELP = True  # with every key of the chosen task
HELP_FLAGS = ("-h", "--help")
SWEEP_FLAGS = ("-m", "--multirun")
SLURM_ONLY = ("gpus", "hours")  # and all of cluster.*; `after` has a refusal of its own
INTERRUPTED = 130  # exit code of a run that Ctrl-C stopped while we followed it


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if any(word in HELP_FLAGS for word in words):
        from launch.options.submit_help import show

        return show(words)
    if any(word.split("=")[0] in HYDRA_FLAGS for word in words):
        return _hydra(words)
    if any(word in SWEEP_FLAGS for word in words):
        return _sweep([word for word in words if word not in SWEEP_FLAGS])
    return _one(_resolved(words), words)


def _sweep(words: Sequence[str]) -> int:
    """One run for each point of a sweep; all points are checked before the first run starts."""
    from launch.options import sweep
    from launch.options.compose import chosen_task

    points = sweep.points(words)
    endings = sweep.endings(points)
    configs = [_resolved(point, suffix=end) for point, end in zip(points, endings, strict=True)]
    worst = 0
    for point, end, config in zip(points, endings, configs, strict=True):
        print(f"{' '.join(point)}:")
        code = _one(config, point, called=f"{chosen_task(point)}{end}")
        worst = max(worst, code)
        if code == INTERRUPTED:
            break
    return worst


def prepare(words: Sequence[str], *, job: str = "", claim: Callable[[Path], None] | None = None) -> RunDir:
    """Make the run directory that the words ask for, and start nothing. `job`, `claim`: see `_make`."""
    return _make(_resolved(words, job=job), words, job=job, claim=claim)


def _resolved(words: Sequence[str], *, suffix: str = "", job: str = "") -> Config:
    """The checked config; its data are located, and opened unless this is a dry run. `suffix` ends a given name."""
    from launch.options.compose import composed
    from launch.start import data, slurm

    config = composed(words)
    name = config.name + suffix if config.name else ""
    config = dataclasses.replace(config, name=name, runs=str(Path(config.runs).expanduser()))
    check_values(config)
    config = config if job else on_cluster(config)  # inside of a job there is nothing to choose
    refuse_unused(config, words)
    check(config)
    config = data.locate_data(config)
    data.check_place(config)
    if config.cluster.name == "slurm":
        slurm.preflight(config)
    if not config.dry_run:
        data.check_people(config, data.check_data(config))
        if config.name and (Path(config.runs) / config.name).exists():
            raise UserError(
                f"name={config.name}: {Path(config.runs) / config.name} exists: type `rostro resume {config.name}` "
                "to go on with it, or another name"
            )
    return config


def on_cluster(config: Config) -> Config:
    """The config with `cluster=auto` decided."""
    from launch.start import slurm

    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, name=slurm.chosen(config)))


def refuse_unused(config: Config, words: Sequence[str]) -> None:
    """UserError for a typed key that only a SLURM can fulfil, where the run starts on this machine."""
    if config.cluster.name != "local":
        return
    for word in words:
        key = word.partition("=")[0]
        if key in SLURM_ONLY or (key.startswith("cluster.") and key != "cluster.name"):
            raise UserError(
                f"{word} is asked of a SLURM, and the run would start on this machine: leave it out, or type "
                "cluster=slurm on a login node"
            )


def _one(config: Config, words: Sequence[str], *, called: str = "") -> int:
    """Do with one resolved config what it asks for. `called`: the run's name where none was given."""
    if config.dry_run:
        from launch.start import dry_run

        return dry_run.show(config, words)
    folders = NewFolders(Path(config.runs).absolute())
    run = _make(config, words, called=called)
    if config.prepare:
        print(f"run          {run.path}")
        print(f"start it     cd {quote(str(run.code))} && PYTHONPATH=. {_torchrun(run, config)}")
        return 0
    return start(run, config, NewRun(run, folders))


def start(run: RunDir, config: Config, before: NewRun | OldRun) -> int:
    """Start the ranks of a run directory, say where to look, and follow the run if it says `wait`.

    `before`: what is restored where SLURM refuses the job.
    """
    from launch import job

    requeue.forget(run)
    if config.cluster.name == "slurm":
        return _queue(run, config, before)
    run.lock.acquire()
    try:
        run.write_status(state="starting", images=config.images, pids={}, message="")
        pid = job.start(run, config.procs)
    except BaseException:
        run.write_status(state="failed", message="the ranks could not be started")
        run.lock.release()
        raise
    run.lock.transfer_to_process(pid)
    quiet = shutil.which("sbatch") and not answers()
    _say_where(run, f"this machine{', where sbatch is, but no SLURM answers' if quiet else ''}")
    if not config.wait:
        return 0
    from launch.watch.follow import follow

    return follow(run, pid, config.procs)


def _queue(run: RunDir, config: Config, before: NewRun | OldRun) -> int:
    """As `start`, by a job of SLURM."""
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


def _torchrun(run: RunDir, config: Config) -> str:
    return f"torchrun --nproc-per-node={config.procs} -m hpc.train {quote(str(run.path))}"


def _make(
    config: Config,
    words: Sequence[str],
    *,
    called: str = "",
    job: str = "",
    claim: Callable[[Path], None] | None = None,
) -> RunDir:
    """Create the run directory: under a temporary name until it is whole, so that no half one is ever seen.

    `job`: it belongs to that job of SLURM from its first instant. `claim` hears where it will lie, just before it does.
    """
    from launch.options.compose import chosen_task

    runs = Path(config.runs).absolute()
    folders = NewFolders(runs)
    first = config.name or called or f"{chosen_task(words)}-{time.strftime('%Y%m%d-%H%M%S')}"
    draft = RunDir(runs / f".tmp-{first}-{os.getpid()}-{time.time_ns()}")
    try:
        _fill(draft, config, words, job)
        for number in itertools.count(1):
            name = first if number == 1 else f"{first}+{number}"
            save_config(dataclasses.replace(config, name=name, runs=str(runs)), draft.config_file)
            if claim:
                claim(runs / name)
            try:
                draft.path.rename(runs / name)
                return RunDir(runs / name)
            except OSError:
                if not (runs / name).exists():
                    raise
                if config.name:
                    raise UserError(
                        f"name={name}: {runs / name} was made this moment by somebody else: use another name"
                    ) from None  # without a name the next one is tried: several may start in one second
    except OSError as error:
        raise UserError(f"{runs / first} cannot be made ({error.strerror}): use runs=FOLDER") from None
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)
        folders.remove()
    raise AssertionError("unreachable")


def _fill(draft: RunDir, config: Config, words: Sequence[str], job: str) -> None:
    """Everything that a run directory holds from its first instant, but its config."""
    from launch.start import data, snapshot

    draft.logs.mkdir(parents=True)
    draft.checkpoints.mkdir()
    snapshot.copy_code(draft.code)
    state = snapshot.git_state() | {"command": ["rostro", "submit", *words], "job": job}
    draft.git_file.write_text(json.dumps(state, indent=1) + "\n")
    write_json(draft.data_file, data.digests(config))
    data.keep_people(draft, config)
    restart.note_saved(draft, 0)
    draft.write_status(state="prepared", clock=0, images=config.images)
    if job:
        draft.lock.acquire(job=job)
        draft.lock.transfer_to_job(job)


def _hydra(words: Sequence[str]) -> int:
    """Completion, --cfg and the like, by Hydra itself; none of them runs anything."""
    import hydra

    from launch.options.compose import CONF, register

    register()
    sys.argv[1:] = words
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(lambda config: None)()
    return 0


if __name__ == "__main__":
    from launch.cli import main as run_command

    sys.exit(run_command(["submit", *sys.argv[1:]]))
