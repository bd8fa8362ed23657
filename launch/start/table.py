"""The plan of a run as a table, for `dry_run=true`: sizes, time, data, optimizer, memory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hpc.config import data_order, held_out
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.plan import plan_of
from hpc.config.players import describe, ema_of, optim_of
from hpc.config.schema import Config, Ema, Optim
from hpc.config.sizes import Sizes, micro_batches
from hpc.config.types import flatten, shown
from launch.start import forecast
from launch.start.data import folders_of
from launch.start.plan import RunPlan
from launch.terminal import print_facts


def memory(plan: RunPlan) -> dict[str, float]:
    """Estimate the bytes of one rank by their use, from the plan's counts; {} if it states none."""
    config, counts = plan.config, plan.stated.counts
    if counts is None:
        return {}
    parameters, activations = 0, 0.0
    for stage in plan.sizes.stages:
        sized = dataclasses.replace(config, data=dataclasses.replace(config.data, size=stage.size))
        parameters, image = counts(sized)
        activations = max(activations, image * micro_batches(config, stage)[0])
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


def micro_text(micro: Sequence[int]) -> str:
    """Return the micro batches as `2 x 16 + 8` or `40 x 16`."""
    first, last, count = micro[0], micro[-1], len(micro)
    if count == 1:
        return str(first)
    return f"{count} x {first}" if first == last else f"{count - 1} x {first} + {last}"


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


def _batch_rows(config: Config, sizes: Sizes) -> list[tuple[str, str]]:
    """Return how the batches are cut: one row, or one for each of several stages."""
    lines = []
    for stage in sizes.stages:
        cut = micro_text(micro_batches(config, stage))
        text = f"{stage.batch} = {sizes.world} x {stage.batch // sizes.world}; micro batches of a rank: {cut}"
        if len(sizes.stages) == 1:
            return [("batch", text)]
        fade = f", which fades in over {stage.fade:,} images" if stage.fade else ""
        reset = "; moments are reset" if stage.reset_moments else ""
        text += f"; {stage.size} x {stage.size}, level {stage.level}{fade}{reset}"
        lines.append((f"from {stage.clock:,}", text))
    return lines


def rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Return the plan as (subject, text)."""
    config, sets, sizes = plan.config, plan.sets, plan.sizes
    data, estimate = config.data, memory(plan)
    parts = ", ".join(f"{what} {size / 1e6:,.0f}" for what, size in estimate.items() if size)
    described = {
        split: f"{folder} ({len(sets[split]):,} images, {len(sets[split].identity_start) - 1:,} identities)"
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
        *_batch_rows(config, sizes),
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
    """Print the plan."""
    print_facts(rows(plan))
