"""The stages of a run: which one holds at a clock, and the checks of all at submit. Imports no torch."""

import itertools
import math
from collections.abc import Sequence

from data_shards.errors import UserError
from hpc.config.plan import Plan, Stage
from hpc.config.schema import Config


def stage_at(stages: Sequence[Stage], clock: int) -> Stage:
    """Return the stage of the update that starts at `clock`."""
    return next(stage for stage in reversed(stages) if stage.clock <= clock)


def fade_at(stages: Sequence[Stage], clock: int) -> float:
    """Return how far the level of the stage at `clock` has come in: from 0 at its beginning to 1."""
    stage = stage_at(stages, clock)
    return min(1.0, (clock - stage.clock) / stage.fade) if stage.fade else 1.0


def lengths(stages: Sequence[Stage], images: int) -> list[int]:
    """Return the length of each stage in images; the last one ends with the run."""
    clocks = [*(stage.clock for stage in stages), images]
    return [after - before for before, after in itertools.pairwise(clocks)]


def num_updates(stages: Sequence[Stage], images: int) -> int:
    """Return the updates of the whole run; the last batch may reach beyond `images`."""
    return sum(
        math.ceil(length / stage.batch) for stage, length in zip(stages, lengths(stages, images), strict=True)
    )


def check_stages(config: Config, plan: Plan) -> None:
    """Raise UserError for the first stage that cannot be trained as it stands."""
    stages = plan.stages(config)
    if not stages or stages[0].clock:
        first = f"the first stage is at clock {stages[0].clock:,}" if stages else "there is no stage"
        raise UserError(f"{first}: let `stages` of {plan.name}_plan.py begin with Stage(0, ...)")
    for stage, length in zip(stages, lengths(stages, config.images), strict=True):
        # What was typed is named by its keys; what the plan made of it by its place.
        is_plain = len(stages) == 1 and stage.batch == config.batch
        place = "" if is_plain else f"stage at clock {stage.clock:,}: "
        _check_batch(config, plan, stage, place)
        _check_length(config, stage, length, is_last=stage is stages[-1])


def _check_length(config: Config, stage: Stage, length: int, *, is_last: bool) -> None:
    place = f"stage at clock {stage.clock:,}"
    if length <= 0 and is_last:
        raise UserError(
            f"{place} is not below images={config.images:,}: use images={stage.clock + stage.batch} or more, "
            "or leave the stage out"
        )
    if length <= 0:
        raise UserError(f"{place} ends at {stage.clock + length:,}: let the clocks of the stages rise")
    if length % stage.batch and not is_last:
        lower, upper = _multiples(length, stage.batch)
        raise UserError(
            f"{place} is {length:,} images long, which are no whole batches of {stage.batch}: use "
            + " or ".join(f"{stage.clock + end:,}" for end in (lower, upper) if end)
            + " as the clock of the next"
        )
    if stage.fade > length or stage.fade < 0:
        raise UserError(f"{place}: fade={stage.fade} is not in [0, {length}]: use {length} or less")
    if stage.level < 0 or stage.size < 1:
        name, value, least = ("level", stage.level, 0) if stage.level < 0 else ("size", stage.size, 1)
        raise UserError(f"{place}: {name}={value} is too small: use {least} or more")


def _check_batch(config: Config, plan: Plan, stage: Stage, place: str) -> None:
    """Refuse sizes into which ranks, groups and micro batches cannot be cut."""
    world, own, batch = config.procs * config.nodes, plan.unit(config), stage.batch
    micro = stage.micro_batch or config.micro_batch
    if batch < 1:
        raise UserError(f"{place}batch={batch} is not positive: use {world} or more")
    unit, text = world, f"{world} ranks"
    if config.data.order == "groups":
        unit, text = world * config.data.group, f"{world} ranks x data.group={config.data.group}"
    if own > 1:
        together = math.lcm(unit // world, own)
        unit, text = world * together, f"{world} ranks x {together} images that stay together"
    _check_divisible(f"{place}batch", batch, world, f"{world} ranks", unit)
    _check_divisible(f"{place}batch", batch, unit, text, unit)
    share = batch // world
    if micro > share:
        raise UserError(
            f"{place}micro_batch={micro} is more than a rank's share, {batch} / {world} = {share}: use "
            f"micro_batch={share} or 0"
        )
    if micro < 0:
        raise UserError(f"{place}micro_batch={micro} is negative: use 0 or more")
    if micro and own > 1:
        _check_divisible(f"{place}micro_batch", micro, own, f"{own} images that stay together", own)
    if config.norm_stats == "group":
        groups = world * config.norm_group
        text = f"{world} ranks x norm_group={config.norm_group}"
        _check_divisible(f"{place}batch", batch, groups, text, math.lcm(unit, groups))
        text = f"norm_group={config.norm_group}"
        _check_divisible(f"{place}micro_batch", micro, config.norm_group, text, config.norm_group)


def _check_divisible(key: str, value: int, divisor: int, text: str, unit: int) -> None:
    """Refuse a value that `divisor`, called `text`, does not divide; the remedy is a multiple of `unit`."""
    if value % divisor:
        lower, upper = _multiples(value, unit)
        remedy = f"{lower} or {upper}" if lower else f"{upper}"
        raise UserError(f"{key}={value} is not divisible by {text}: use {remedy}")


def _multiples(value: int, unit: int) -> tuple[int, int]:
    """Return the multiples of `unit` next to `value`."""
    lower = value // unit * unit
    return lower, lower + unit
