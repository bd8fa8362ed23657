"""`rostro status`: list the runs of a folder from their status files; a run without its processes is dead."""

import dataclasses
import fnmatch
import json
import os
import time
from typing import Any

from data_shards.errors import UserError
from hpc.cluster import slurm
from hpc.runs import failures, goodput
from hpc.runs.run_dir import ACTIVE, RunDir, list_runs
from launch.options.key_value import parse
from launch.options.option import Option, option_lines
from launch.terminal import Column, duration, table, width, wrapped

OPTIONS = {
    "runs": Option("runs", "folder of the run directories"),
    "last": Option(0, "only so many of the newest (0 = all)", least=0),
    "name": Option("", "only runs with such a name: name='siamese-*seed=1'"),
    "json": Option(False, "one JSON list instead of a table"),
}
PLACES = {
    "RUN": "only this run, with its account of time and, if it failed, the end of the failed rank's log"
}
HELP = f"""
usage: rostro status [RUN] [key=value ...]

Lists runs, the newest last: state, images seen, images a second, time left, training loss, last metrics.

{option_lines(OPTIONS, PLACES)}

Goodput is the share of the allocated time spent on training that was kept and on evaluation, over all starts.
States: queued (its SLURM job waits), prepared, starting, running, saving, requeueing (saved; its SLURM job
puts itself back into the queue), stopped (saved; `rostro resume` resumes it), finished, failed, dead (its
processes ended without a message; `rostro resume` resumes from the last checkpoint), damaged (one of its
files cannot be read: the message names it and the remedy).
Example: rostro status runs=/scratch/runs json=true
"""

GREEN, CYAN, RED = 32, 36, 31
COLOURS = {"running": GREEN, "starting": CYAN, "dead": RED, "failed": RED, "damaged": RED}
OVER = ("failed", "dead")  # states in which unsaved work is lost
METRICS = 4  # figures shown in the table
WRONG = ("failed", "damaged")  # states that have a message
KNOWN = (
    "task",
    "task.loss",
    "seed",
    "images",
    "rate",
    "left",
    "loss",
    "goodput",
    "damaged_lines",
    "restarts",
    "job",
    "updated",
)
# The row of a damaged run, of which only name, state and message are known.
BLANK: dict[str, Any] = dict.fromkeys(KNOWN) | {"metrics": {}, "message": ""}
TAIL = 12  # lines of the failed rank's log


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",))
    runs = [RunDir.open(keys.run, runs=keys.runs)] if keys.run else matching(keys.runs, keys.name, keys.last)
    rows = [describe(run) for run in runs]
    if keys.json:
        print(json.dumps(rows))
    elif not rows and keys.name:
        print(f"no run in {os.path.abspath(keys.runs)} is called {keys.name}: quote name='*' to see all")
    elif not rows:
        print(
            f"no runs in {os.path.abspath(keys.runs)}: `rostro submit` starts one, runs=FOLDER looks "
            "elsewhere"
        )
    else:
        show(rows)
        if keys.run:
            show_more(runs[0], rows[0])
    return 0


def matching(runs: str, name: str, last: int) -> list[RunDir]:
    """Return the runs of a folder whose name matches `name`, oldest first; of these the `last` (0 = all)."""
    matches = [run for run in list_runs(runs) if not name or fnmatch.fnmatchcase(run.name, name)]
    return matches[-last:] if last else matches


def describe(run: RunDir) -> dict[str, Any]:
    """Return one run's row in plain values; if a file cannot be read, only the message that names it."""
    try:
        return _described(run)
    except (UserError, OSError) as error:
        return {"run": run.name, "path": str(run.path), "state": "damaged", "message": str(error)}


def _described(run: RunDir) -> dict[str, Any]:
    status, config = run.status(), run.config()
    clock, images = int(status.get("clock") or 0), config.images
    rate = float(status.get("rate") or 0.0)
    left = (images - clock) / rate if rate and status["state"] in ACTIVE else None
    over = status["state"] in OVER
    account = goodput.summary(run, over=over)
    ended = failures.root_cause(run) if over else None
    job = run.ownership.job()
    return {
        "run": run.name,
        "path": str(run.path),
        "task": config.task.get("name"),
        "task.loss": config.task.get("loss"),
        "seed": config.seed,
        "state": status["state"],
        "clock": clock,
        "images": images,
        "rate": rate,
        "left": left,
        "loss": status.get("loss"),
        "metrics": status.get("metrics") or {},
        "ranks": config.procs * config.nodes,
        "starts": account["starts"],
        "restarts": max(account["starts"] - 1, int(run.ownership.read().get("restarts", 0))),
        "goodput": account["goodput"],
        "damaged_lines": account["damaged"],
        "seconds": account["seconds"],
        "allocated": account["allocated"],
        "job": job,
        "slurm": (slurm.job_word(job) or "unknown") if job and status["state"] != "finished" else "",
        "updated": status.get("time"),
        "message": status.get("message", ""),
        "root_cause": dataclasses.asdict(ended) if ended else None,
    }


def show_more(run: RunDir, row: dict[str, Any]) -> None:
    """Print where a run's time went and, if it failed, the last lines of the failed rank."""
    from launch.watch.log_files import last_lines

    if row.get("allocated"):
        print(f"time allocated {duration(row['allocated'])}, starts {row['starts']}")
        for kind, seconds in row["seconds"].items():
            if seconds > 0:
                shown = duration(seconds) if seconds >= 10 else f"{seconds:.1f}s"
                print(f"  {goodput.NAMES[kind]:<22}{shown:>9}  {seconds / row['allocated']:.0%}")
    ended = row.get("root_cause")
    if ended:
        print(f"rank {ended['rank']} ended it: {ended['message']}")
        log = run.log(ended["rank"])
        if log.exists() and log.stat().st_size:
            print(f"the end of {log}:")
            with log.open("rb") as file:
                print("\n".join(f"  {line}" for line in last_lines(file, TAIL)))


def show(runs: list[dict[str, Any]]) -> None:
    """Print the table, and below it why runs failed. Columns equal in all runs are shown if there is room."""
    rows = [BLANK | row for row in runs]
    jobs = [f"{row['job']} {row['slurm']}".strip() if row["job"] else "" for row in rows]
    columns = [
        Column("run", [row["run"] for row in rows]),
        _setting("task", rows),
        Column("state", [row["state"] for row in rows], colours=[COLOURS.get(r["state"], 0) for r in rows]),
        Column("SLURM job", jobs),
        Column("images", [_share(row) for row in rows], right=True),
        Column("img/s", [f"{row['rate']:,.0f}" if row["rate"] else "" for row in rows], right=True, spare=1),
        Column("left", [duration(row["left"]) for row in rows], right=True),
        Column("seen", [_age(row) for row in rows], right=True, spare=2),
        _setting("task.loss", rows),
        _setting("seed", rows, right=True),
        Column("restarts", [str(row["restarts"] or "") for row in rows], right=True, spare=4),
        Column("goodput", [_percent(row["goodput"]) for row in rows], right=True, spare=3),
        Column("last figures", [_figures(row) for row in rows]),
    ]
    print("\n".join(table(columns, width())))
    for row in rows:
        if row["state"] in WRONG and row["message"]:
            print("\n".join(wrapped(f"{row['run']}: {row['message']}", width())))
        if row["damaged_lines"]:
            print(
                f"{row['run']}: {row['damaged_lines']} damaged lines of ledger.jsonl are not in its goodput"
            )


def _setting(key: str, rows: list[dict[str, Any]], *, right: bool = False) -> Column:
    """Return the column of a config key, which stays if the runs differ in it."""
    cells = ["" if row[key] is None else str(row[key]) for row in rows]
    return Column(key, cells, right=right, spare=0 if len({cell for cell in cells if cell}) > 1 else 5)


def _share(row: dict[str, Any]) -> str:
    return f"{row['clock']:,} ({row['clock'] / row['images']:.0%})" if row["images"] else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _figures(row: dict[str, Any]) -> str:
    figures = [f"{name} {value:.4g}" for name, value in list(row["metrics"].items())[:METRICS]]
    if row["loss"] is not None:
        figures.insert(0, f"loss {row['loss']:.4g}")
    return ", ".join(figures)


def _age(row: dict[str, Any]) -> str:
    return f"{duration(max(0.0, time.time() - row['updated']))} ago" if row["updated"] else ""
