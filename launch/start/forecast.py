"""The expected time of a run, for the plan: measured by a similar run of this folder, or typical."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.config.stages import lengths
from hpc.runs.run_dir import list_runs
from launch.start.plan import RunPlan
from launch.terminal import duration

DAY = 86_400  # seconds; a longer run is worth a warning
LOOKED_AT = 50  # of the newest runs
NETWORK = ("name", "trunk", "backbone", "width")  # keys of the task
ALIKE = ("procs", "nodes", "gpus", "precision")


class Rate(NamedTuple):
    """A rate and where it comes from."""

    images_per_s: float
    source: str  # in words


def rate(plan: RunPlan) -> Rate | None:
    """Return the rate to expect (None = unknown)."""
    return _measured(plan.config) or _typical(plan)


def text(config: Config, rate: Rate | None) -> str:
    """Return the plan's line on the time that the run takes."""
    if rate is None:
        return "unknown: no run like it has been measured here"
    images_per_s, source = rate
    shown = f"{images_per_s:,.0f}" if images_per_s >= 10 else f"{images_per_s:.2g}"
    return f"about {duration(config.images / images_per_s)} at {shown} images/s, {source}"


def warning(config: Config, rate: Rate | None) -> str:
    """Return a warning for a run of more than a day; empty for others."""
    if rate is None or config.images / rate.images_per_s <= DAY:
        return ""
    day = float(f"{rate.images_per_s * DAY:.1g}")
    return (
        f"images={config.images:_} takes {text(config, rate)}: that is more than a day, which is enough "
        f"for about images={day:_.0f}; a smaller data.size= and more ranks or GPUs are faster"
    )


def _measured(config: Config) -> Rate | None:
    """Return the rate of the newest run of the same network, size and ranks."""
    for run in reversed(list_runs(Path(config.runs))[-LOOKED_AT:]):
        try:
            other, measured = run.config(), float(run.status().get("rate") or 0.0)
        except (UserError, ValueError, TypeError):  # a damaged run is skipped
            continue
        if measured > 0 and _speed_keys(other) == _speed_keys(config):
            return Rate(measured, f"as run {run.name} did")
    return None


def _speed_keys(config: Config) -> list[Any]:
    common = [getattr(config, key) for key in ALIKE]
    network = [config.task.get(key) for key in NETWORK]
    return [*common, *network, config.data.size, config.cluster.name]


def _typical(plan: RunPlan) -> Rate | None:
    """Return the rate by the cores of the ranks; None for GPUs, whose rates differ too much."""
    config, core_rate = plan.config, plan.stated.core_rate
    if core_rate is None or config.gpus or _has_gpu(config):
        return None
    if config.cluster.name == "slurm":
        cores = config.procs * config.nodes * max(1, config.cluster.cpus)
    else:
        usable = len(os.sched_getaffinity(0))
        cores = usable if config.procs == 1 else min(usable, config.procs)
    stages = plan.sizes.stages
    seconds = 0.0  # of one core for the whole run
    for stage, images in zip(stages, lengths(stages, config.images), strict=True):
        sized = dataclasses.replace(config, data=dataclasses.replace(config.data, size=stage.size))
        seconds += images / core_rate(sized)
    return Rate(cores * config.images / seconds, f"typical of {cores} CPU core{'s' * (cores > 1)}")


def _has_gpu(config: Config) -> bool:
    return config.cluster.name != "slurm" and any(Path("/dev").glob("nvidia[0-9]*"))
