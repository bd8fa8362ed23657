"""Refuses configs that cannot work, as far as this takes neither data nor torch.

What a single value may be stands beside its key in `hpc/config/schema.py`; here is what keys refuse together.
Its batches are those of its stages (`hpc/config/stages.py`); a task refuses more in
`hpc/tasks/<name>_plan.py`, by its `check(config, sets)`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config import apex, deepspeed, transfer
from hpc.config.data_order import check_order, check_roles, check_streamed
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.plan import Plan, check_engine, plan_of
from hpc.config.players import check_names, every_optim, own_rules
from hpc.config.rules import WORDS, Rule, rules
from hpc.config.schema import Config, Data, Optim
from hpc.config.stages import check_stages
from hpc.config.text import check_text
from hpc.config.types import ITEMS, common, flatten, shown


def value_of(config: Config, key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def all_rules(plan: Plan) -> dict[str, Rule]:
    """Map every key that may be typed for a task to its rule."""
    return shared_rules(plan) | own_rules(plan.players)


def shared_rules(plan: Plan) -> dict[str, Rule]:
    """Map every key that is not one player's to its rule: of the schema, and of `KEYS` in the task's plan."""
    return rules(Config) | WORDS | {f"task.{key}": rule for key, rule in plan.keys.items()}


def check_values(config: Config, task_defaults: Mapping[str, Any] | None = None) -> None:
    """Raise UserError for the first value that is wrong by itself: text, choices and ranges.

    task_defaults: dotted keys `task.*` with the examples that an error may show (None = it shows none)
    """
    check_text(config)
    plan, given = plan_of(config.task), flatten(config.task, "task.")
    defaults = flatten(dataclasses.asdict(Config())) | dict(task_defaults or {})
    defaults |= {key: [item] for key, item in ITEMS.items()}  # empty lists are no examples
    own = own_rules(config.players)
    defaults |= {key: defaults[common(key)] for key in own}
    for key, value in flatten(dataclasses.asdict(config)).items():
        if any(isinstance(item, float) and not math.isfinite(item) for item in (value, *_items(value))):
            example = f", for example {key}={shown(defaults[key])}" if key in defaults else ""
            raise UserError(f"{key}={shown(value)} is not a finite number: use a finite one{example}")
    for key, rule in (shared_rules(plan) | own).items():
        if key in WORDS:
            continue
        if key.startswith("task.") and key not in given:
            if rule.younger:
                continue
            raise UserError(f"{key} is missing: give it, or start again with `rostro submit`")
        if fault := rule.fault(key, value_of(config, key), defaults.get(key)):
            raise UserError(fault)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def check(config: Config, task_defaults: Mapping[str, Any] | None = None) -> None:
    """Raise UserError for the first thing that cannot work; the message names key, value and remedy.

    task_defaults: see `check_values`
    """
    plan = plan_of(config.task)
    check_names(config, plan.players)
    check_values(config, task_defaults)
    for place, optim in every_optim(config):
        _check_optim(config, place, optim)
    _check_data(config.data)
    check_stages(config, plan)
    check_order(config.data)
    check_streamed(config.data)
    check_roles(config.data, plan)
    _check_members(config, plan)
    check_engine(config, plan)
    transfer.check(config)
    deepspeed.check(config)
    if config.nodes > 1 and config.cluster.name == "local":
        raise UserError(f"nodes={config.nodes}: cluster=local is one machine: use nodes=1 and procs=RANKS")
    if config.cluster.name == "slurm" and config.hours * 3600 <= config.cluster.warning:
        raise UserError(
            f"hours={config.hours:g} is no longer than cluster.warning={config.cluster.warning} seconds: the "
            "run would save and leave at once: use a longer allocation or a smaller cluster.warning"
        )
    if config.after and config.cluster.name == "local":
        raise UserError(
            f"after={config.after}: nothing waits for a run without a SLURM: use cluster=slurm, or wait=true "
            "there and start this one behind it"
        )
    plan.check(config, {})


def _check_members(config: Config, plan: Plan) -> None:
    """Refuse slots of another number of images than the task takes."""
    given, wanted = config.data.members, plan.members(config)
    if given != wanted:
        raise UserError(
            f"data.members={given}: task={plan.name} takes {wanted} image{'s' * (wanted > 1)} a slot: use "
            f"data.members={wanted}"
        )


def _check_optim(config: Config, place: str, optim: Optim) -> None:
    """Refuse settings of an optimizer that contradict each other; `place` is the key of their block."""
    if len(optim.betas) != 2:
        raise UserError(
            f"{place}.betas={shown(optim.betas)} are not two numbers in [0, 1): use {place}.betas=[0.9,0.999]"
        )
    if optim.nesterov and not optim.momentum:
        raise UserError(f"{place}.nesterov=true needs {place}.momentum above 0: set {place}.momentum=0.9")
    if optim.schedule == "step" and (not optim.steps or sorted(optim.steps) != optim.steps):
        raise UserError(
            f"{place}.steps={shown(optim.steps)} are not rising shares of the run: use "
            f"{place}.steps=[0.5,0.75]"
        )
    if optim.impl == "apex":
        apex.check_name(optim.name)
    if optim.impl == "apex" and config.engine.name == "deepspeed":
        raise UserError(
            f"{place}.impl=apex does not go with engine=deepspeed, which splits what Apex counts together: "
            f"use {place}.impl=torch, or engine=ddp"
        )
    if optim.warmup >= config.images:
        raise UserError(
            f"{place}.warmup={optim.warmup} is not below images={config.images}: use for example "
            f"{place}.warmup={config.images // 10}"
        )
    if optim.hold and optim.schedule not in ("cosine", "linear"):
        raise UserError(
            f"{place}.hold={optim.hold} belongs to {place}.schedule=cosine or linear, not to "
            f"{place}.schedule={optim.schedule}: leave it out"
        )
    if optim.hold and optim.warmup + optim.hold * config.images >= config.images:
        raise UserError(
            f"{place}.hold={optim.hold} and {place}.warmup={optim.warmup} leave nothing of "
            f"images={config.images} for the rate to fall: use {place}.hold=0.5 and a shorter warm-up"
        )
    if optim.warmup_momentum and not optim.warmup:
        raise UserError(
            f"{place}.warmup_momentum={optim.warmup_momentum} needs a warm-up: use for example "
            f"{place}.warmup={config.images // 10}"
        )
    if optim.warmup_bias and not optim.warmup:
        raise UserError(
            f"{place}.warmup_bias={optim.warmup_bias:g} needs a warm-up: use {place}.warmup=1000, "
            f"or {place}.warmup_bias=0"
        )
    if optim.warmup_momentum and not {"betas", "momentum"} & set(OPTIMIZERS[optim.name].reads):
        raise UserError(
            f"{place}.warmup_momentum={optim.warmup_momentum}: {place}.name={optim.name} has no momentum: "
            "leave it out"
        )
    _check_momentum(place, optim)


def _check_momentum(place: str, optim: Optim) -> None:
    """Refuse a warm-up from which momentum would fall: at 0 the optimizer would keep no state of it."""
    key, last = (
        ("betas", optim.betas[0]) if "betas" in OPTIMIZERS[optim.name].reads else ("momentum", optim.momentum)
    )
    if optim.warmup_momentum > last:
        raise UserError(
            f"{place}.warmup_momentum={optim.warmup_momentum} is above {place}.{key}, to whose {last} it "
            f"would fall: use {last} or less, or leave it out"
        )


def _check_data(data: Data) -> None:
    """Refuse ranges of the augmentation, and ways of reading, that contradict each other."""
    augment = data.augment
    for key in ("crop_area", "crop_ratio"):
        bounds = getattr(augment, key)
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            plain = getattr(type(augment)(), key)
            raise UserError(
                f"data.augment.{key}={shown(bounds)} is not a range: use two rising numbers, for example "
                f"data.augment.{key}={shown(plain)}"
            )
    stage = data.stage
    if stage and data.stream:
        raise UserError(
            f"data.stage={stage} copies whole sets, data.stream=true reads shards as they come: leave one of "
            "them out"
        )
    if data.twins != sorted(set(data.twins)):
        raise UserError(
            f"data.twins={shown(data.twins)} does not rise: type data.twins={shown(sorted(set(data.twins)))}"
        )
