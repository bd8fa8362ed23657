"""The plan of a run as a table, for `dry_run=true`: sizes, time, data, optimizer, memory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hpc.config import data_order, held_out
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.plan import Stage, plan_of
from hpc.config.players import describe, ema_of, optim_of
from hpc.config.schema import Config, Ema, Optim
from hpc.config.sizes import Sizes, micro_batches
from hpc.config.types import flatten, shown
from launch.start import forecast, levels
from launch.start.data import folders_of
from launch.start.plan import RunPlan
from launch.terminal import print_facts


def memory(plan: RunPlan, stages: Sequence[Stage] = ()) -> dict[str, float]:
    """Estimate the bytes of one rank by their use, from the plan's counts; {} if it states none.

    stages: the largest of them counts (empty = all of the run)
    """
    config, counts = plan.config, plan.stated.counts
    if counts is None:
        return {}
    parameters, activations = counts(config)[0], 0.0
    for stage in stages or plan.sizes.stages:
        sized = dataclasses.replace(config, data=dataclasses.replace(config.data, size=stage.size))
        activations = max(activations, counts(sized)[1] * micro_batches(config, stage)[0])
    half = 0.5 if config.precision == "bf16" else 1.0
    world, copy = config.procs * config.nodes, 4.0 * parameters
    moments = max(len(OPTIMIZERS[o.name].moments_with(o.momentum)) for o, _ in _settings(config).values())
    return {
        "weights": copy,
        "gradients": copy,
        "gradients in transit": copy if world > 1 and config.engine.name == "flat" else 0.0,
        "optimizer": copy * moments,
        "EMA": copy if any(ema.half_life for _, ema in _settings(config).values()) else 0.0,
        "activations": activations * half,
    }


def _settings(config: Config) -> dict[str, tuple[Optim, Ema]]:
    """Return optimizer and average of each player."""
    names = plan_of(config.task).players
    return {name: (optim_of(config, name), ema_of(config, name)) for name in names}


def _optimizer_rows(config: Config) -> list[tuple[str, str]]:
    if not config.players:
        return [("optimizer", f"{config.optim.name}, lr {config.optim.lr:g}, {config.optim.schedule}")]
    return [(f"player {name}", describe(*settings)) for name, settings in _settings(config).items()]


def _weights_rows(config: Config) -> list[tuple[str, str]]:
    """Return with whose weights the run begins, where it is another one's."""
    init = config.init
    if not init.run:
        return []
    text = f"begin with those of {init.run}, checkpoint {init.checkpoint}"
    text += f", but for {', '.join(init.skip)}" if init.skip else ""
    return [("weights", text + (f"; never trained: {', '.join(init.freeze)}" if init.freeze else ""))]


def _keys_text(task: Mapping[str, Any]) -> str:
    """Return the keys of a task as they are typed, less its name."""
    return ", ".join(f"{key}={shown(value)}" for key, value in flatten(task).items() if key != "name")


def _batch_row(config: Config, sizes: Sizes) -> tuple[str, str]:
    """Return how a batch is cut; of several stages there is a table."""
    first, *more = sizes.stages
    if more:
        return "levels", f"{len(sizes.stages)}, from {first.size} to {more[-1].size} pixels: the table below"
    cut = levels.micro_text(micro_batches(config, first))
    return "batch", f"{first.batch} = {sizes.world} x {sizes.share}; micro batches of a rank: {cut}"


def _people(shards: Any) -> str:
    count = len(shards.identity_start) - 1
    return f", {count:,} identities" if count else " of unknown people"


def rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Return the plan as (subject, text)."""
    config, sets, sizes = plan.config, plan.sets, plan.sizes
    data, estimate = config.data, memory(plan)
    parts = ", ".join(f"{what} {size / 1e6:,.0f}" for what, size in estimate.items() if size)
    described = {
        split: f"{folder} ({len(sets[split]):,} images{_people(sets[split])})"
        if split in sets
        else folder or "none"
        for split, folder in folders_of(config).items()
    }
    if judged := held_out.validation(data):
        described[judged] += f", {sizes.evaluations:,} evaluations"
    epochs = ""
    if sets.get("train") is not None:
        from hpc.data import orders  # numpy

        epochs = f", {config.images / orders.epoch_images(config, orders.training_sets(sets)):,.1f} epochs"
    twins = f", twins {', '.join(map(str, data.twins))}" if data.twins else ""
    lines = [
        ("task", _keys_text(config.task)),
        ("ranks", f"{sizes.world} ({config.nodes} x {config.procs}), engine {config.engine.name}"),
        _batch_row(config, sizes),
        ("run", f"{config.images:,} images = {sizes.updates:,} updates{epochs}"),
        ("time", forecast.text(config, forecast.rate(plan))),
        ("saves", f"{sizes.saves:,} checkpoints, every {config.save.every:,} images"),
        ("train", described["train"]),
        *([("train b", described["train_b"])] if data.train_b else []),
        ("val", described["val"]),
        ("eval", described["eval"]),
        ("figures", held_out.statement(data)),
        (
            "images",
            f"{data.size} x {data.size}, order {data_order.describe(data)}, backend {data.backend}{twins}",
        ),
        *_weights_rows(config),
        *_optimizer_rows(config),
        ("precision", f"{config.precision}, norm_stats {config.norm_stats}"),
    ]
    if estimate:
        lines.append(
            (
                "memory",
                f"about {sum(estimate.values()) / 1e6:,.0f} MB a rank ({parts}), besides the libraries",
            )
        )
    return [(f"task {config.task['name']}" if what == "task" else what, text) for what, text in lines]


def show(plan: RunPlan) -> None:
    """Print the plan, and the table of its stages where there are several."""
    print_facts(rows(plan))
    if len(plan.sizes.stages) == 1:
        return
    known = [sum(memory(plan, [stage]).values()) for stage in plan.sizes.stages]
    print("\n".join(["", *levels.lines(plan, known if any(known) else []), *levels.notes(plan)]))
