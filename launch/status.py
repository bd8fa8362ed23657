"""`rostro status`: the runs of a folder, from their status files; a run whose processes are gone is dead."""

import dataclasses
import json
import os
import time
from typing import Any

from data_shards.errors import UserError
from hpc import failure, ledger, slurm
from hpc.rundir import ACTIVE, RunDir, list_runs
from launch import args

HELP = """
usage: rostro status [RUN] [key=value ...]

Lists runs: state, images seen, images a second, time left, goodput, last metrics.

  RUN          only this one, with its account of time and, if it failed, the end of the guilty rank's log
  runs=runs    folder of the run directories
  json=false   one JSON list instead of a table

Goodput is the share of the allocated time spent on training that was kept and on evaluation, over all starts.
States: queued (its SLURM job waits), prepared, starting, running, saving, stopped (saved, `rostro resume` goes on),
finished, failed, dead (its processes are gone without a word: `rostro resume` goes on from the last checkpoint).
Example: rostro status runs=/scratch/runs json=true
"""

COLOURS = {"running": "green", "saving": "green", "starting": "cyan", "dead": "red", "failed": "red"}
OVER = ("failed", "dead")  # what was not saved is lost
METRICS = 4  # figures shown in the table
TAIL = 12  # lines of the guilty rank's log


def main(argv: list[str]) -> int:
    keys = args.parse(argv, {"runs": "runs", "json": False}, positional=("run",))
    runs = [RunDir.open(keys.run, runs=keys.runs)] if keys.run else list_runs(keys.runs)
    found = [describe(run) for run in runs]
    if keys.json:
        print(json.dumps(found))
    elif not found:
        print(
            f"no runs in {os.path.abspath(keys.runs)}: `rostro submit` starts one, runs=FOLDER looks elsewhere"
        )
    else:
        show(found)
        if keys.run:
            show_more(runs[0], found[0])
    return 0


def describe(run: RunDir) -> dict[str, Any]:
    """One run's row, in plain values."""
    status = run.status()
    try:
        config = run.config()
    except UserError as error:
        return {"run": run.name, "path": str(run.path), "state": "damaged", "message": str(error)}
    clock, images = int(status.get("clock") or 0), config.images
    rate = float(status.get("rate") or 0.0)
    left = (images - clock) / rate if rate and status["state"] in ACTIVE else None
    over = status["state"] in OVER
    account = ledger.summary(run, over=over)
    ended = failure.guilty(run) if over else None
    job = run.job()
    return {
        "run": run.name,
        "path": str(run.path),
        "task": config.task.get("name"),
        "state": status["state"],
        "clock": clock,
        "images": images,
        "rate": rate,
        "left": left,
        "loss": status.get("loss"),
        "metrics": status.get("metrics") or {},
        "ranks": config.procs * config.nodes,
        "starts": account["starts"],
        "restarts": max(account["starts"] - 1, int(run.owner().get("restarts", 0))),
        "goodput": account["goodput"],
        "seconds": account["seconds"],
        "allocated": account["allocated"],
        "job": job,
        "slurm": (slurm.job_word(job) or "unknown") if job and status["state"] != "finished" else "",
        "updated": status.get("time"),
        "message": status.get("message", ""),
        "guilty": dataclasses.asdict(ended) if ended else None,
    }


def show_more(run: RunDir, row: dict[str, Any]) -> None:
    """Where a run's time went and, if it failed, what its guilty rank last said."""
    from launch.logs import last_lines

    if row.get("allocated"):
        print(f"time allocated {duration(row['allocated'])}, starts {row['starts']}")
        for kind, seconds in row["seconds"].items():
            if seconds > 0:
                shown = duration(seconds) if seconds >= 10 else f"{seconds:.1f}s"
                print(f"  {ledger.NAMES[kind]:<22}{shown:>9}  {seconds / row['allocated']:.0%}")
    ended = row.get("guilty")
    if ended:
        print(f"rank {ended['rank']} ended it: {ended['message']}")
        log = run.log(ended["rank"])
        if log.exists() and log.stat().st_size:
            print(f"the end of {log}:")
            with log.open("rb") as file:
                print("\n".join(f"  {line}" for line in last_lines(file, TAIL)))


def show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("run", "task", "state"):
        table.add_column(title, overflow="fold")
    jobs = any(row.get("job") for row in found)
    if jobs:
        table.add_column("SLURM job", no_wrap=True)
    for title in ("images", "img/s", "left", "seen", "restarts", "goodput"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("last figures", overflow="fold")
    for row in found:
        state = Text(row["state"], style=COLOURS.get(row["state"], ""))
        if row["state"] == "damaged":
            table.add_row(row["run"], "", state, *[""] * (6 + jobs), row["message"])
            continue
        share = f"{row['clock']:,} ({row['clock'] / row['images']:.0%})"
        figures = [f"{name} {value:.4g}" for name, value in list(row["metrics"].items())[:METRICS]]
        if row["loss"] is not None:
            figures.insert(0, f"loss {row['loss']:.4g}")
        last = row["message"] if row["state"] == "failed" else "  ".join(figures)
        rate = f"{row['rate']:,.0f}" if row["rate"] else ""
        job = [f"{row['job']} {row['slurm']}".strip()] if jobs else []
        goodput = f"{row['goodput']:.0%}" if row["goodput"] is not None else ""
        rest = (share, rate, duration(row["left"]), _age(row), str(row["restarts"] or ""), goodput, last)
        table.add_row(row["run"], row["task"], state, *job, *rest)
    Console(highlight=False, markup=False, width=None if os.isatty(1) else 180).print(table)


def _age(row: dict[str, Any]) -> str:
    return f"{duration(max(0.0, time.time() - row['updated']))} ago" if row["updated"] else ""


def duration(seconds: float | None) -> str:
    """`42s`, `3m07s`, `2h05m`, `1d04h`; empty for None."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
