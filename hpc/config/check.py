"""Every refusal of a config that needs neither data nor torch, and the sizes that follow from it.

A task's own refusals are in `hpc/tasks/<name>_plan.py`: `check(config)`, and `counts(config, memory)` for the
plan.
"""

import dataclasses
import importlib
import importlib.util
import math
from types import ModuleType
from typing import Any

from data_shards.errors import UserError
from hpc.config import deepspeed
from hpc.config.apex import OPTIMIZERS as APEX
from hpc.config.parse import task_defaults
from hpc.config.rules import WORDS, Rule, rules
from hpc.config.schema import Config, Data
from hpc.config.text import check_text
from hpc.config.types import ITEMS, flatten, near, shown

MOST = {  # beyond which a value is a slip of the finger, and would exhaust memory while it is planned
    "batch": 1 << 22,
    "procs": 1 << 10,
    "nodes": 1 << 17,
    "gpus": 1 << 10,
    "hours": 24 * 3660,
    "hang_timeout": 1 << 30,
    "data.size": 1 << 13,
    "data.threads": 1 << 10,
    "data.ahead": 1 << 10,
    "eval.batch": 1 << 20,
    "log.projector": 1 << 16,
    "cluster.cpus": 1 << 16,
    "cluster.mem_gb": 1 << 20,
    "cluster.warning": 1 << 20,
}
# data.order -> the key that only this order reads, and a value of it
READ_BY = {
    "weighted": ("weights", "quality"),
    "balanced": ("balance", "race"),
    "mixed": ("mix", "'race==0:0.3; race!=0:0.7'"),
}


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def all_rules(task: str) -> dict[str, Rule]:
    """The rule of every key: of the schema, and of the task's own keys where its checks declare them."""
    own = getattr(checks_of(task), "KEYS", {})
    return rules(Config) | WORDS | {f"task.{key}": rule for key, rule in own.items()}


def check_values(config: Config) -> None:
    """What `check` refuses of each value by itself: text, choices and ranges."""
    check_text(config)
    name = config.task.get("name", "")
    defaults = flatten(dataclasses.asdict(Config())) | task_defaults(name)
    defaults |= {key: [item] for key, item in ITEMS.items()}  # empty lists are no examples
    for key, value in flatten(dataclasses.asdict(config)).items():
        if any(isinstance(item, float) and not math.isfinite(item) for item in (value, *_items(value))):
            example = f", for example {key}={shown(defaults[key])}" if key in defaults else ""
            raise UserError(f"{key}={shown(value)} is not a finite number: use a finite one{example}")
    for key, rule in all_rules(name).items():
        if key in WORDS:
            continue
        if key.startswith("task.") and key[5:] not in config.task:
            raise UserError(f"{key} is missing: give it, or start again with `rostro submit`")
        if fault := rule.fault(key, value_of(config, key), defaults.get(key)):
            raise UserError(fault)
    for key, most in MOST.items():
        if value_of(config, key) > most:
            raise UserError(f"{key}={shown(value_of(config, key))} is too large: use {most} or less")


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def check(config: Config) -> None:
    """Raise UserError for the first thing that cannot work; the message names key, value and remedy."""
    check_values(config)
    _check_numbers(config)
    _check_batch(config)
    _check_order(config.data)
    deepspeed.check(config)
    if config.nodes > 1 and config.cluster.name == "local":
        raise UserError(f"nodes={config.nodes}: cluster=local is one machine: use nodes=1 and procs=RANKS")
    if config.cluster.name == "slurm" and config.hours * 3600 <= config.cluster.warning:
        raise UserError(
            f"hours={config.hours:g} is no longer than cluster.warning={config.cluster.warning} seconds: the "
            f"run would "
            "save and leave at once: use a longer allocation or a smaller cluster.warning"
        )
    if config.after and config.cluster.name == "local":
        raise UserError(
            f"after={config.after}: nothing waits for a run without a SLURM: use cluster=slurm, or wait=true "
            f"there and "
            "start this one behind it"
        )
    refuse = getattr(task_checks(config), "check", None)
    if refuse is not None:
        refuse(config)


def _check_numbers(config: Config) -> None:
    optim, augment = config.optim, config.data.augment
    if len(optim.betas) != 2:
        raise UserError(
            f"optim.betas={shown(optim.betas)} are not two numbers in [0, 1): use optim.betas=[0.9,0.999]"
        )
    if optim.nesterov and not optim.momentum:
        raise UserError("optim.nesterov=true needs optim.momentum above 0: set optim.momentum=0.9")
    if optim.schedule == "step" and (not optim.steps or sorted(optim.steps) != optim.steps):
        raise UserError(
            f"optim.steps={shown(optim.steps)} are not rising shares of the run: use optim.steps=[0.5,0.75]"
        )
    if optim.impl == "apex" and optim.name not in APEX:
        raise UserError(f"optim.name={optim.name}: NVIDIA Apex has no such optimizer: use optim.impl=torch")
    if optim.impl == "apex" and config.engine.name == "deepspeed":
        raise UserError(
            "optim.impl=apex does not go with engine=deepspeed, which splits what Apex counts together: use "
            "optim.impl=torch, or engine=ddp"
        )
    if optim.warmup >= config.images:
        raise UserError(
            f"optim.warmup={optim.warmup} is not below images={config.images}: use for example "
            f"optim.warmup={config.images // 10}"
        )
    for key in ("crop_area", "crop_ratio"):
        bounds = getattr(augment, key)
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            plain = getattr(type(augment)(), key)
            raise UserError(
                f"data.augment.{key}={shown(bounds)} is not a range: use two rising numbers, for example "
                f"data.augment.{key}={shown(plain)}"
            )
    stage = config.data.stage
    if stage and config.data.stream:
        raise UserError(
            f"data.stage={stage} copies whole sets, data.stream=true reads shards as they come: leave one of "
            f"them out"
        )


def _check_order(data: Data) -> None:
    for kind, (name, example) in READ_BY.items():
        value = getattr(data, name)
        if data.order == kind and not value:
            raise UserError(f"data.order={kind} needs data.{name}: type for example data.{name}={example}")
        if value and data.order != kind:
            raise UserError(
                f"data.{name}={shown(value)} belongs to data.order={kind}, not to data.order={data.order}: "
                f"use data.order={kind}, or leave data.{name} out"
            )
    if data.order == "mixed" and data.rows != Data().rows:
        raise UserError(
            f"data.rows={data.rows}: the parts of data.mix choose rows themselves: leave data.rows out"
        )
    if data.stream and data.order not in ("plain", "groups"):
        raise UserError(
            f"data.order={data.order} needs the set's index, data.stream=true reads shards as they come: use "
            "data.order=plain or groups, or leave data.stream out"
        )
    if data.stream and data.rows != Data().rows:
        raise UserError(
            f"data.rows={data.rows} needs the set's index, data.stream=true reads shards as they come: leave "
            "one of them out"
        )


def _check_batch(config: Config) -> None:
    world = config.procs * config.nodes
    unit, what = world, f"{world} ranks"
    if config.data.order == "groups":
        unit, what = world * config.data.group, f"{world} ranks x data.group={config.data.group}"
    _divisible(config.batch, world, f"{world} ranks", unit)
    _divisible(config.batch, unit, what, unit)
    share = config.batch // world
    if config.micro_batch > share:
        raise UserError(
            f"micro_batch={config.micro_batch} is more than a rank's share, {config.batch} / {world} = "
            f"{share}: "
            f"use micro_batch={share} or 0"
        )
    if config.norm_stats == "group":
        each = math.lcm(unit, world * config.norm_group)
        _divisible(
            config.batch, world * config.norm_group, f"{world} ranks x norm_group={config.norm_group}", each
        )
        if config.micro_batch % config.norm_group:
            _refuse("micro_batch", config.micro_batch, config.norm_group, f"norm_group={config.norm_group}")


def _divisible(batch: int, by: int, what: str, unit: int) -> None:
    if batch % by:
        _refuse("batch", batch, unit, what)


def _refuse(key: str, value: int, unit: int, what: str) -> None:
    lower, upper = value // unit * unit, (value // unit + 1) * unit
    use = f"{lower} or {upper}" if lower else f"{upper}"
    raise UserError(f"{key}={value} is not divisible by {what}: use {use}")


def task_checks(config: Config) -> ModuleType | None:
    """The torch-free module beside the task of a config, or None where the task needs none."""
    return checks_of(config.task.get("name", ""))


def checks_of(name: str) -> ModuleType | None:
    """The same for a task's name; UserError for a task that is not there."""
    if not is_task(name):
        import pkgutil

        import hpc.tasks

        known = [
            entry.name
            for entry in pkgutil.iter_modules(hpc.tasks.__path__)
            if not entry.name.endswith("_plan")
        ]
        raise UserError(
            f"task.name={shown(name)} is no file in hpc/tasks: {near(str(name), known, what='task')}"
        )
    module = f"hpc.tasks.{name}_plan"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


def is_task(name: Any) -> bool:
    """Whether hpc/tasks has a task of that name: a plain word, by which nothing else can be imported."""
    plain = isinstance(name, str) and name.isidentifier() and not name.endswith("_plan")
    return plain and importlib.util.find_spec(f"hpc.tasks.{name}") is not None
