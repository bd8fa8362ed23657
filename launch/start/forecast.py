"""The expected time of a run, for the plan: measured by a similar run of this folder, or typical."""

import dataclasses
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_shards.errors import UserError
from data_shards.files import parse_json, read_bytes
from hpc.config.plan import Stage, plan_of
from hpc.config.schema import Config
from hpc.config.stages import lengths, stage_at
from hpc.runs.run_dir import list_runs
from launch.start.plan import RunPlan
from launch.terminal import duration

DAY = 86_400  # seconds; a longer run is worth a warning
LINES = 1 << 32  # bytes of a file of metrics
LOOKED_AT = 50  # of the newest runs
NETWORK = ("name", "trunk", "backbone", "width")  # keys of the task
ALIKE = ("procs", "nodes", "gpus", "precision")


class Rate(NamedTuple):
    """A rate and where it comes from."""

    images_per_s: float
    source: str  # in words


def rate(plan: RunPlan) -> Rate | None:
    """Return the rate to expect of the whole run (None = unknown)."""
    if len(plan.sizes.stages) == 1:
        return _measured(plan.config) or _typical(plan, plan.sizes.stages[0])
    found = [each for each in stage_rates(plan) if each]
    if len(found) < len(plan.sizes.stages):
        return None  # the largest level, which takes the most time, is not known
    spans = lengths(plan.sizes.stages, plan.config.images)
    seconds = sum(span / each.images_per_s for span, each in zip(spans, found, strict=True))
    return Rate(plan.config.images / seconds, found[-1].source)


def stage_rates(plan: RunPlan) -> list[Rate | None]:
    """Return the rate to expect of each stage: as a run like this one had it there, or typical."""
    found = _measured_stages(plan)
    return [found.get((stage.size, stage.batch)) or _typical(plan, stage) for stage in plan.sizes.stages]


def text(config: Config, rate: Rate | None) -> str:
    """Return the plan's line on the time that the run takes."""
    if rate is None:
        return "unknown: no run like it has been measured here"
    return f"about {duration(config.images / rate.images_per_s)} at {shown(rate)} images/s, {rate.source}"


def shown(rate: Rate) -> str:
    """Return the number of a rate."""
    return f"{rate.images_per_s:,.0f}" if rate.images_per_s >= 10 else f"{rate.images_per_s:.2g}"


def useful_seconds(config: Config) -> float:
    """Return how long an allocation of `hours` trains; the warning time is lost."""
    return max(60.0, config.hours * 3600 - config.cluster.warning)


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


def _measured_stages(plan: RunPlan) -> dict[tuple[int, int], Rate]:
    """Return the median rates of the log lines of like runs, by the size and the batch of their stages."""
    found: dict[tuple[int, int], Rate] = {}
    for run in reversed(list_runs(Path(plan.config.runs))[-LOOKED_AT:]):
        try:
            other = run.config()
            if _speed_keys(other) != _speed_keys(plan.config):
                continue
            stages = plan_of(other.task).stages(other)
            for place, rates in _logged(run.metrics_file, stages).items():
                found.setdefault(place, Rate(statistics.median(rates), f"as run {run.name} did"))
        except (UserError, ValueError, TypeError, KeyError):  # a damaged run is skipped
            continue
    return found


def _logged(path: Path, stages: Sequence[Stage]) -> dict[tuple[int, int], list[float]]:
    """Return the rates in a file of metrics by size and batch; the first line of a stage begins before it."""
    found: dict[tuple[int, int], list[float]] = {}
    before = 0
    for line in read_bytes(path, limit=LINES).splitlines():
        point = parse_json(line, {"clock": int, "images_per_s?": float}, what=str(path))
        if "images_per_s" not in point:
            continue
        if (stage := stage_at(stages, before)) is stage_at(stages, point["clock"] - 1):
            found.setdefault((stage.size, stage.batch), []).append(point["images_per_s"])
        before = point["clock"]
    return found


def _speed_keys(config: Config) -> list[Any]:
    common = [getattr(config, key) for key in ALIKE]
    network = [config.task.get(key) for key in NETWORK]
    return [*common, *network, config.data.size, config.cluster.name]


def _typical(plan: RunPlan, stage: Stage) -> Rate | None:
    """Return the rate of a stage by the cores of the ranks; None for GPUs, whose rates differ too much."""
    config, core_rate = plan.config, plan.stated.core_rate
    if core_rate is None or config.gpus or _has_gpu(config):
        return None
    if config.cluster.name == "slurm":
        cores = config.procs * config.nodes * max(1, config.cluster.cpus)
    else:
        usable = len(os.sched_getaffinity(0))
        cores = usable if config.procs == 1 else min(usable, config.procs)
    sized = dataclasses.replace(config, data=dataclasses.replace(config.data, size=stage.size))
    return Rate(cores * core_rate(sized), f"typical of {cores} CPU core{'s' * (cores > 1)}")


def _has_gpu(config: Config) -> bool:
    return config.cluster.name != "slurm" and any(Path("/dev").glob("nvidia[0-9]*"))
