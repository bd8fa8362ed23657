"""The runs that another one needs, at submit: are they there, and do they fit?

`init.run` is the one with whose weights it begins; a task may name others, whose networks help its losses
(`Plan.runs`). Torch is imported here, and only where `init.run` is given: a misfit is refused before the
queue.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from hpc.config.plan import kind_of, plan_of
from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir


def located(config: Config) -> Config:
    """Return the config with the absolute folder of `init.run`; UserError where it is not a run."""
    if not config.init.run:
        return config
    try:
        run = RunDir.open(Path(config.init.run).expanduser(), runs=config.runs).path
    except UserError as error:
        raise UserError(f"init.run={config.init.run}: {error}") from None
    return dataclasses.replace(config, init=dataclasses.replace(config.init, run=str(run)))


def with_helpers(config: Config) -> Config:
    """Return the config with the absolute folders of the runs that keys of the task name.

    UserError where one is not there (any more), is of another kind of job, or has no checkpoint.
    """
    keys = dict(config.task)
    for key, kind in plan_of(config.task).runs.items():
        if keys.get(key):  # an older run may not have it
            keys[key] = str(_helper(f"task.{key}={keys[key]}", keys[key], kind, config.runs))
    return dataclasses.replace(config, task=keys)


def _helper(typed: str, name: str, kind: str, runs: str) -> Path:
    try:
        run = RunDir.open(Path(name).expanduser(), runs=runs)
        found = run.config().task
    except UserError as error:
        raise UserError(f"{typed}: {error}") from None
    if kind_of(found) != kind:
        raise UserError(f"{typed}: is a run of task={found.get('name')}: give one of task={kind}")
    if not any(path.name.isdigit() for path in run.checkpoints.glob("*")):
        raise UserError(f"{typed}: has no checkpoint yet: wait for its first, or give another run")
    return run.path


def check(config: Config) -> None:
    """Build the networks of the new run; refuse weights that do not fit them, and to freeze all of one."""
    from hpc.checkpoints import transfer
    from hpc.optim.groups import freeze
    from hpc.task import build_task
    from hpc.training.helpers import parameter_groups

    task = build_task(config)
    players = task.players()
    transfer.fitting(config, transfer.of_networks(players), transfer.read(record(config)))
    for name, module in players.items():
        freeze(module, parameter_groups(task, name, module), name)


def record(config: Config) -> dict[str, Any]:
    """Return what the new run keeps of the checkpoint with which it begins."""
    from hpc.checkpoints import transfer

    return transfer.choose(config)


def keep_people(folder: Path, config: Config) -> None:
    """Record the people whom the source's weights have seen: they are known to the new run too."""
    from hpc.data import known_people

    known = _known(config)
    if known:
        people = known[0]
        for other in known[1:]:
            people = known_people.joined(people, other)
        known_people.write(folder, people, role=known_people.BEGAN)


def check_people(config: Config, people: Mapping[str, Any]) -> None:
    """Refuse held-out sets whose people the source has seen, unless data.allow_shared permits it."""
    if not config.init.run or config.data.allow_shared:
        return
    from hpc.data import known_people

    for split in ("val", "eval"):
        both = known_people.shared_with_any(_known(config), people[split]) if split in people else []
        if both:
            raise UserError(
                f"data.{split}={people[split].folder} holds {len(both)} people of the training of "
                f"init.run={config.init.run}, such as {both[0]}: their figures say nothing of new people; "
                "give other sets, or type data.allow_shared=true"
            )


def _known(config: Config) -> list[Any]:
    from hpc.data import known_people

    run = RunDir(config.init.run)
    return known_people.of_training(run.path, run.config().data.train)
