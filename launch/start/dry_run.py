"""The output of `dry_run=true`: the plan, warnings, and the text for sbatch. Nothing is made."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir
from launch.options.compose import task_yaml
from launch.options.conf import chosen_task
from launch.start import data, forecast


def show(config: Config, words: Sequence[str]) -> int:
    """Print the plan of the run that the words ask for; return the exit code."""
    sets: dict[str, Any] = {}
    try:
        sets = data.check_data(config)
        data.check_people(config, sets)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
    counts = task_yaml(chosen_task(words)).get("memory", {})
    data.show(config, counts, sets)
    if line := forecast.warning(config, forecast.rate(config, counts)):
        print(f"warning: {line}", file=sys.stderr)
    if config.cluster.name == "slurm":
        _show_job(config)
    return 0


def _show_job(config: Config) -> None:
    """Print the sbatch text, and how many allocations the run will need if its rate is known."""
    from launch.start import slurm

    run = RunDir(Path(config.runs) / (config.name or f"{config.task['name']}-<date>-<time>"))
    status = run.status()
    rate, left = float(status.get("rate") or 0.0), config.images - int(status.get("clock") or 0)
    if rate:
        count = slurm.allocations(config, left, rate)
        print(f"allocations  {count} of {config.hours:g} hours, at {rate:,.0f} images/s as this run did")
    else:
        need = config.images / (config.hours * 3600)
        print(
            f"allocations  1 of {config.hours:g} hours from {need:,.1f} images/s on; "
            "this run has no measured rate yet"
        )
    print(f"\n{slurm.sbatch_text(run, config)}")
