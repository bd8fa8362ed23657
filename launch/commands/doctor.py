"""`rostro doctor`: report what this machine and its SLURM have, what is missing, harmful, and what to type.

Probes: `launch/doctor/machine.py`, `launch/doctor/slurm.py`, `launch/doctor/probe_job.py` (a job of a
minute).
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.runs import goodput, status
from hpc.runs.run_dir import RunDir
from launch.doctor import machine, probe_job, slurm
from launch.doctor.finding import HARMFUL, MISSING, OK, Finding
from launch.doctor.site import Need, Site, look
from launch.options.key_value import parse
from launch.options.option import Option, option_lines
from launch.options.site import site_file, site_values

OPTIONS = {
    "run": Option("", "judge times by what a step and a save of this run took", placeholder="RUN"),
    "save_seconds": Option(60.0, "the same by hand; run= overrides it where the run has saved"),
    "only": Option("", "machine or slurm: only that half", choices=("machine", "slurm")),
    "trial": Option(False, "submit a job of a minute: do the nodes see the runs' folder, do signals arrive?"),
    "nodes": Option(2, "nodes of that job"),
    "partition": Option("", "its partition (empty = the default one)"),
    "seconds": Option(120.0, "how long it may wait in the queue"),
    "runs": Option("", "folder of the run directories (empty = that of the site file, else runs)"),
    "json": Option(False, "one JSON list instead of lines"),
}
HELP = f"""
usage: rostro doctor [key=value ...]

Looks at this machine (GPU, NCCL, DALI, NVIDIA Apex, DeepSpeed, network, file systems) and at its SLURM
(partitions, GPUs, KillWait, GraceTime, JobRequeue, PreemptMode, signals, accounting) and says, a line each,
what is ok, worth a note, missing or harmful to runs that must outlive their allocations, and what to type or
to ask of the admin.

{option_lines(OPTIONS)}

Exit code: 0, or 1 where something is harmful.
Example: rostro doctor run=lfw-1 trial=true
"""

COLOURS = {"ok": "green", "note": "cyan", "missing": "yellow", "harmful": "bold red"}


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS)
    values = site_values()
    runs = Path(keys.runs or values.get("runs") or "runs").absolute()
    need = _need(keys, values, runs)
    findings: list[Finding] = []
    site = look()
    if keys.only != "slurm":
        findings += _machine(runs, site)
    if keys.only != "machine":
        findings += slurm.judge(site, need) if site else [_no_slurm()]
        findings += _site(values)
    if keys.trial:
        if site is None:
            raise UserError("trial=true needs a SLURM that answers: type it on a login node, or leave it out")
        partition = keys.partition or values.get("cluster.partition", "")
        findings += probe_job.run(runs, nodes=keys.nodes, partition=partition, queue=keys.seconds)
    if keys.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        _show(findings)
    return int(any(finding.level == HARMFUL for finding in findings))


def _need(keys: SimpleNamespace, values: dict[str, object], runs: Path) -> Need:
    """Return the seconds that a run needs to end well: measured if `run=` has saved, else save_seconds."""
    config, seconds, why = Config(task={}), keys.save_seconds, f"save_seconds={keys.save_seconds:g}"
    warning, hours = config.cluster.warning, config.hours
    warning = int(str(values.get("cluster.warning", warning)))
    hours = float(str(values.get("hours", hours)))
    partition = str(values.get("cluster.partition", ""))
    if keys.run:
        run = RunDir.open(keys.run, runs=str(runs))
        config = run.config()
        warning, hours, partition = config.cluster.warning, config.hours, config.cluster.partition
        saving = longest_save(run)
        if saving is not None:
            rate = float(status.read(run.status_file).get("rate") or 0)
            step = config.batch / rate if rate else 0.0
            seconds, why = saving + step, f"measured in {run.name}"
    return Need(seconds, why, warning, hours, config.gpus, partition)


def longest_save(run: RunDir) -> float | None:
    """Return the most seconds of saving between two lines of the run's ledger; None if it has not saved.

    With save.mode=async the save that is being written must end before another begins: twice its time.
    """
    longest, last, start = 0.0, 0.0, None
    for line in goodput.lines(run)[0]:
        if "seconds" not in line:
            continue
        now = line["seconds"]["save"]
        longest = max(longest, 2 * line.get("writing", 0.0))
        last = last if line.get("start") == start else 0.0
        longest, last, start = max(longest, now - last), now, line.get("start")
    return longest or None


def _machine(runs: Path, site: Site | None) -> list[Finding]:
    places = {"runs": runs, "checkout": Path(__file__).resolve().parents[2], "environment": Path(sys.prefix)}
    if os.environ.get("ROSTRO_SHARDS"):
        places["shards"] = Path(os.environ["ROSTRO_SHARDS"]).absolute()
    return [
        *machine.judge(machine.imported(), slurm=site is not None),
        *machine.network(),
        *machine.folders(places, elsewhere=site is not None and slurm.elsewhere(site)),
    ]


def _no_slurm() -> Finding:
    return Finding(
        MISSING,
        "SLURM",
        "no controller answers here: runs start on this machine (cluster=local)",
        "log in to the cluster, or try one at home: slurm/sandbox.sh up DIR",
    )


def _site(values: dict[str, object]) -> list[Finding]:
    path = site_file()
    if path is None:
        return []
    return [
        Finding(OK, "site file", f"{path}: {', '.join(f'{key}={value}' for key, value in values.items())}")
    ]


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        line = Text(f"{finding.level:<9}", style=COLOURS[finding.level])
        line.append(f"{finding.what:<{width}}  {finding.text}", style="default")
        console.print(line)
        if finding.advice:
            console.print(Text(f"{'':<9}{'':<{width}}  -> {finding.advice}"))
    counts = {level: sum(finding.level == level for finding in findings) for level in COLOURS}
    console.print(", ".join(f"{count} {level}" for level, count in counts.items()))
