"""The output of `dry_run=true`: the plan, warnings, and the text for sbatch. Nothing is made."""

import sys
from pathlib import Path

from hpc.runs.run_dir import RunDir
from launch.start import forecast, table
from launch.start.plan import RunPlan


def show(plan: RunPlan) -> int:
    """Print the plan of a run; return the exit code."""
    if plan.warning:
        print(f"warning: {plan.warning}", file=sys.stderr)
    table.show(plan)
    if line := forecast.warning(plan.config, forecast.rate(plan)):
        print(f"warning: {line}", file=sys.stderr)
    if plan.config.cluster.name == "slurm":
        _show_job(plan)
    return 0


def _show_job(plan: RunPlan) -> None:
    """Print the sbatch text, and how many allocations the run will need if its rate is known."""
    config = plan.config
    from launch.start import slurm

    run = RunDir(Path(config.runs) / (config.name or f"{config.task['name']}-<date>-<time>"))
    status = run.status()
    rate, left = float(status.get("rate") or 0.0), config.images - int(status.get("clock") or 0)
    of_plan = forecast.rate(plan)
    if len(plan.sizes.stages) > 1 and of_plan:  # the last rate of a run is that of its level
        count = slurm.allocations(config, config.images, of_plan.images_per_s)
        print(f"allocations  {count} of {config.hours:g} hours, {of_plan.source}")
    elif rate:
        count = slurm.allocations(config, left, rate)
        print(f"allocations  {count} of {config.hours:g} hours, at {rate:,.0f} images/s as this run did")
    else:
        need = config.images / (config.hours * 3600)
        print(
            f"allocations  1 of {config.hours:g} hours from {need:,.1f} images/s on; "
            "this run has no measured rate yet"
        )
    print(f"\n{slurm.sbatch_text(run, config)}")
