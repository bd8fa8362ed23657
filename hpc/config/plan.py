"""What a task states before torch is loaded: its roles, engines, controls, players and stages.

`hpc/tasks/<kind>_plan.py` states it in plain module variables and functions; what it omits has its default
here, and nowhere else. Jobs whose yamls name one `task.kind` share a plan and a task file; without the key a
job is of its own kind. Submit, dry run, audit, trainer and tests read the `Plan`. The checks of stages:
`hpc/config/stages.py`.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from data_shards.errors import UserError
from hpc.config.rules import Rule
from hpc.config.schema import Config
from hpc.config.types import near, shown

Roles = Mapping[str, tuple[str, ...]]
Counts = Callable[[Config], tuple[int, float]]
CoreRate = Callable[[Config], float]
OF_KEYS = ("keys", "roles", "labels", "engines")  # what a plan may state by a function of the task's keys


@dataclass(frozen=True)
class Stage:
    """What holds from a clock on, until the next stage. A stage begins at the end of the update that reaches
    it.
    """

    clock: int  # images seen
    batch: int  # images of all ranks in one update
    size: int  # pixels, side of the square image that the networks see in training
    level: int = 0  # of a network that grows
    fade: int = 0  # images over which the level comes in (0 = at once)
    micro_batch: int = 0  # images of a rank at a time (0 = `micro_batch` of the config)
    reset_moments: bool = False  # whether the optimizers forget their moments where it begins
    rate: float = 1.0  # factor of the players' learning rates


def _one_stage(config: Config) -> list[Stage]:
    return [Stage(0, config.batch, config.data.size)]


def _no_check(config: Config, sets: Mapping[str, Any]) -> None:
    pass


def _one_image(config: Config) -> int:
    return 1


@dataclass(frozen=True)
class Plan:
    """The statements of a task. KEYS, roles, labels and engines may be functions of its keys, `config.task`.

    roles: set -> the labels that it must hold, for each set that the task uses: `age`, or `age:value` for one
        of that kind only
    labels: label -> its Field (data_shards/shard_format/schema.py), for each whose classes or bits the job
        states itself; the faces that an audit draws have them
    engines: under which the task may run: `ddp`, `flat`, `deepspeed` (any stage of ZeRO), `deepspeed:1`
    controls: parts of the state (optim, ema, task) whose loss an audit must notice (None = what there is)
    elastic: whether a run that is resumed on another number of ranks ends with the same weights but for
        rounding; where it is chaotic, only samples and first updates are compared
    stages: config -> its stages, the first at clock 0
    check: refuses a config; called without sets before any is opened, then with the opened ones
    unit: config -> images that must stay together on one rank, for ops that mix them
    members: config -> images that a slot must have, more than 1 for a mosaic of own ones
    runs: keys of the task that name another run -> the kind of job that it must be, for helpers that nothing
        trains; submit writes the folder, and refuses runs of another kind
    counts, core_rate: config -> (parameters of all networks, fp32 bytes that an image keeps for backward),
        and images a second that a CPU core trains, for the dry run (None = not known)
    """

    name: str  # of the job
    keys: Mapping[str, Rule] = field(default_factory=dict)  # of the yaml's block `task`: KEYS of the module
    labels: Mapping[str, Any] = field(default_factory=dict)
    roles: Roles = field(default_factory=lambda: {"train": (), "val": (), "eval": ()})
    engines: tuple[str, ...] = ("ddp", "flat", "deepspeed")
    controls: tuple[str, ...] | None = None
    players: tuple[str, ...] = ("net",)
    elastic: bool = True
    stages: Callable[[Config], list[Stage]] = _one_stage
    check: Callable[[Config, Mapping[str, Any]], None] = _no_check
    unit: Callable[[Config], int] = _one_image
    members: Callable[[Config], int] = _one_image
    runs: Mapping[str, str] = field(default_factory=dict)
    counts: Counts | None = None
    core_rate: CoreRate | None = None

    def fields(self, role: str) -> tuple[str, ...]:
        """Return the names of the labels that the set of a role must hold."""
        return tuple(field.partition(":")[0] for field in self.roles.get(role, ()))

    def allows(self, engine: str, zero: int) -> bool:
        """Return whether the task may run under an engine; zero: the stage of ZeRO, for deepspeed."""
        return engine in self.engines or f"{engine}:{zero}" in self.engines


def kind_of(keys: Mapping[str, Any]) -> Any:
    """Return the kind of the job with these task's keys: the name of its file in hpc/tasks."""
    return keys.get("kind", keys.get("name"))


def plan_of(keys: Mapping[str, Any]) -> Plan:
    """Return the plan of the job with these task's keys, `config.task`; UserError for an unknown kind."""
    kind = kind_of(keys)
    if not is_task(kind):
        known = [
            entry.name
            for entry in pkgutil.iter_modules(importlib.import_module("hpc.tasks").__path__)
            if not entry.name.endswith("_plan")
        ]
        key = "kind" if "kind" in keys else "name"
        raise UserError(
            f"task.{key}={shown(kind)} is no file in hpc/tasks: {near(str(kind), known, what='task')}"
        )
    module = f"hpc.tasks.{kind}_plan"
    name = str(keys.get("name", kind))
    if not importlib.util.find_spec(module):
        return Plan(name)
    return _read(name, importlib.import_module(module), keys)


def _read(name: str, module: ModuleType, keys: Mapping[str, Any]) -> Plan:
    """Build the record of a plan module from what it states; OF_KEYS may be functions of the task's keys."""
    names = [stated for stated in Plan.__dataclass_fields__ if stated not in ("name", "keys")]
    stated = {key: value for key, value in vars(module).items() if key in names}
    stated["keys"] = vars(module).get("KEYS", {})
    for key in OF_KEYS:
        if callable(stated.get(key)):
            stated[key] = stated[key](keys)
    return Plan(name, **stated)


def is_task(name: Any) -> bool:
    """Return whether hpc/tasks has a task of that name: only a plain word can be imported."""
    is_word = isinstance(name, str) and name.isidentifier() and not name.endswith("_plan")
    return is_word and importlib.util.find_spec(f"hpc.tasks.{name}") is not None


def check_engine(config: Config, plan: Plan) -> None:
    """Raise UserError for an engine under which the task may not run."""
    engine, zero = config.engine.name, config.engine.deepspeed.stage
    if plan.allows(engine, zero):
        check_players(config, plan.players)
        return
    typed = f"engine={engine}" + (f" engine.deepspeed.stage={zero}" if engine == "deepspeed" else "")
    others = [words_of(allowed) for allowed in plan.engines]
    raise UserError(f"{typed}: task={plan.name} does not run under it: use {' or '.join(others)}")


def check_players(config: Config, players: Sized) -> None:
    """Refuse several players where DeepSpeed's hooks cannot tell their passes apart."""
    stage = config.engine.deepspeed.stage
    if config.engine.name == "deepspeed" and len(players) > 1 and stage > 1:
        raise UserError(
            f"engine.deepspeed.stage={stage} takes one network, this task has {len(players)} players: use "
            "engine.deepspeed.stage=1 or engine=flat"
        )


def words_of(engine: str) -> str:
    """Return what to type for an engine of `Plan.engines`: `deepspeed:1` is two words."""
    name, _, zero = engine.partition(":")
    return f"engine={name}" + (f" engine.deepspeed.stage={zero}" if zero else "")
