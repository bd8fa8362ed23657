"""Make a run directory from typed words: resolve, check, fill it under a temporary name, then rename it."""

import dataclasses
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import write_json
from hpc.config.check import check, check_values
from hpc.config.parse import save_config
from hpc.config.schema import Config
from hpc.runs import restart
from hpc.runs.run_dir import RunDir
from launch.start.plan import RunPlan
from launch.start.undo import NewFolders

SLURM_ONLY = ("gpus", "hours")  # and all of cluster.*; `after` has a refusal of its own


def prepare(words: Sequence[str], *, job: str = "", claim: Callable[[Path], None] | None = None) -> RunDir:
    """Make the run directory that the words ask for, and start nothing. job, claim: see `make`."""
    return make(resolve(words, job=job), job=job, claim=claim)


def resolve(
    words: Sequence[str], *, suffix: str = "", job: str = "", opened: dict[str, Any] | None = None
) -> RunPlan:
    """Return the run that the words ask for, checked, with its sets opened. A dry run may lack them.

    suffix: ending of a given name (empty = none)
    job: the SLURM job in which this runs (empty = none)
    opened: sets that the points of a sweep share, by folder (None = a single run)
    """
    from launch.options.compose import composed, task_keys
    from launch.options.conf import chosen_task
    from launch.start import data, slurm, weights

    config = composed(words)
    name = config.name + suffix if config.name else ""
    config = dataclasses.replace(config, name=name, runs=str(Path(config.runs).expanduser()))
    task = chosen_task(words)
    examples = task_keys(task)
    check_values(config, examples)
    config = config if job else on_cluster(config)  # a job has its cluster
    refuse_unused(config, words)
    check(config, examples)
    config = weights.with_helpers(weights.located(data.locate_data(config)))
    data.check_place(config)
    if config.cluster.name == "slurm":
        slurm.preflight(config)
    sets: dict[str, Any] = {}
    people, warning = sets, ""
    try:
        sets = data.check_data(config, opened)
        people = data.with_streamed(config, sets)
        data.check_people(config, people)
        weights.check_people(config, people)
    except UserError as error:
        if not config.dry_run:
            raise
        warning = str(error)
    if config.init.run:
        weights.check(config)
    if not config.dry_run and config.name and (Path(config.runs) / config.name).exists():
        raise UserError(
            f"name={config.name}: {Path(config.runs) / config.name} exists: type `rostro resume "
            f"{config.name}`, or use another name"
        )
    return RunPlan(config, tuple(words), task, sets, people, warning)


def on_cluster(config: Config) -> Config:
    """Return the config with `cluster=auto` decided."""
    from launch.start import slurm

    return dataclasses.replace(
        config, cluster=dataclasses.replace(config.cluster, name=slurm.chosen_cluster(config))
    )


def refuse_unused(config: Config, words: Sequence[str]) -> None:
    """Raise UserError for a typed key that only SLURM can fulfil, if the run starts on this machine."""
    if config.cluster.name != "local":
        return
    for word in words:
        key = word.partition("=")[0]
        if key in SLURM_ONLY or (key.startswith("cluster.") and key != "cluster.name"):
            raise UserError(
                f"{word} is a request to SLURM, but the run would start on this machine: leave it out, or "
                "type cluster=slurm on a login node"
            )


def make(
    plan: RunPlan,
    *,
    called: str = "",
    job: str = "",
    claim: Callable[[Path], None] | None = None,
    fill: Callable[[RunDir], None] | None = None,
) -> RunDir:
    """Create the run directory of a plan, under a temporary name until it is complete.

    called: its name if the config has none (empty = task and date)
    job: the SLURM job to which it belongs from its first instant (empty = none)
    claim: called with its path just before it exists
    fill: called with the unfinished directory, to put more into it
    """
    config = plan.config
    runs = Path(config.runs).absolute()
    folders = NewFolders(runs)
    first = config.name or called or f"{plan.task}-{time.strftime('%Y%m%d-%H%M%S')}"
    draft = RunDir(runs / f".tmp-{first}-{os.getpid()}-{time.time_ns()}")
    try:
        _fill(draft, plan, job)
        if fill:
            fill(draft)
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
                        f"name={name}: another process has just made {runs / name}: use another name"
                    ) from None
                # Without a given name the next one is tried: several runs may start in one second.
    except OSError as error:
        raise UserError(f"{runs / first} cannot be made ({error.strerror}): use runs=FOLDER") from None
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)
        folders.remove()
    raise AssertionError("unreachable")


def _fill(draft: RunDir, plan: RunPlan, job: str) -> None:
    """Write everything that a run directory holds from its first instant, except its config."""
    from launch.start import data, set_digests, snapshot, weights

    draft.logs.mkdir(parents=True)
    draft.checkpoints.mkdir()
    snapshot.copy_code(draft.code)
    state = snapshot.git_state() | {"command": ["rostro", *plan.command, *plan.words], "job": job}
    draft.git_file.write_text(json.dumps(state, indent=1) + "\n")
    digests = {split: shards.digest for split, shards in plan.sets.items()}
    manifests = {split: shards.manifest for split, shards in plan.sets.items()}
    write_json(draft.data_file, digests | set_digests.of_twins(plan.config, manifests))
    data.keep_people(draft, plan)
    if plan.config.init.run:
        write_json(draft.init_file, weights.record(plan.config))
    restart.note_saved(draft, 0)
    draft.write_status(state="prepared", clock=0, images=plan.config.images)
    if job:
        draft.ownership.acquire(job=job)
        draft.ownership.transfer_to_job(job)
