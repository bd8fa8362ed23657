"""Figures of finished runs side by side: the last report of each, or else its best checkpoint's figures.

Runs whose configs agree in all but the seed are one group, with mean and spread. Imports no torch.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import read_json
from hpc.checkpoints import manifest
from hpc.config.identity import numbers
from hpc.runs.run_dir import RunDir

REPORT = {
    "set?": (str, None),
    "split?": (str, None),
    "manifest_sha256?": (str, None),
    "checkpoint?": int,
    "weights?": str,
    "kind?": str,
    "evaluators?": {str: dict},
    "rows?": [dict],
}


@dataclass
class Compared:
    """One run, or one report of `rostro score`."""

    name: str
    task: str  # of a scored file its kind
    figures: dict[str, float]  # <evaluator>/<scalar>
    judged_on: str  # the set, or `val, best checkpoint`
    digest: str = ""  # of that set
    checkpoint: int | None = None
    seed: int | None = None
    metric: tuple[str, str] = ("", "min")  # by which the run chose its checkpoint
    settings: Mapping[str, Any] = field(default_factory=dict)  # keys that change numbers, less the seed


def read(place: str, *, report: str = "") -> Compared:
    """Read a run directory, or the folder of a report of `rostro score`.

    report: the folder below RUN/evaluations (empty = the newest). Raises UserError where nothing is to be
    compared.
    """
    folder = Path(place)
    if not (folder / "config.yaml").is_file() and (folder / "report.json").is_file():
        return _of_report(folder)
    run = RunDir.open(place)
    config = run.config()
    settings = {key: value for key, value in numbers(config).items() if key != "seed"}
    best = _best(run.path)
    compared = Compared(run.name, str(config.task["name"]), {}, "", seed=config.seed, settings=settings)
    if best:
        compared.metric = best["metric"]
    path = _report_file(run.path, report)
    if path is not None:
        content = _read(path)
        compared.figures = _figures(content)
        compared.judged_on = " ".join(filter(None, (content.get("set"), content.get("split"))))
        compared.digest, compared.checkpoint = content.get("manifest_sha256") or "", content.get("checkpoint")
    elif best:
        compared.figures, compared.checkpoint = best["figures"], best["clock"]
        compared.judged_on = "in training, best checkpoint"
    if not compared.figures:
        raise UserError(f"{run.path} has no figures yet: type rostro evaluate {place}")
    return compared


def _report_file(run: Path, report: str) -> Path | None:
    files = sorted(run.glob("evaluations/*/report.json"), key=lambda path: path.stat().st_mtime)
    if not report:
        return files[-1] if files else None
    for path in files:
        if path.parent.name == report:
            return path
    known = ", ".join(path.parent.name for path in files) or "none"
    raise UserError(f"report={report}: {run} has no report of that name, it has {known}")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, REPORT, remedy="`rostro evaluate` makes it anew")
    return content


def _of_report(folder: Path) -> Compared:
    content = _read(folder / "report.json")
    kind = content.get("kind")
    if not kind:
        raise UserError(f"{folder} is a report of `rostro evaluate`: name its run instead")
    name = content.get("run")
    place = " ".join(filter(None, (content.get("set"), content.get("split"))))
    digest = content.get("manifest_sha256") or ""
    return Compared(str(name or folder.name), kind, _figures(content), place, digest)


def _figures(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars of a report by `<evaluator>/<scalar>`; older ones have those of the first row."""
    found = {
        f"{name}/{key}": value
        for name, part in content.get("evaluators", {}).items()
        for key, value in (part.get("scalars") or {}).items()
    }
    if not found and content.get("rows"):
        found = {f"verification/{key}": content["rows"][0].get(key) for key in ("eer", "auc", "d_prime")}
    return {_today(key): float(value) for key, value in found.items() if _finite(value)}


def _today(name: str) -> str:
    """Return today's name of a figure: before, the macro F1 of classes was `f1`."""
    evaluator, slash, figure = name.rpartition("/")
    old = figure == "f1" or figure.startswith("f1_gap_")
    return f"{evaluator}{slash}macro_{figure}" if old else name


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _best(run: Path) -> dict[str, Any] | None:
    """Return figures, clock and metric of the best checkpoint by its own metric; None without one."""
    best: dict[str, Any] | None = None
    for path in sorted((run / "checkpoints").glob("[0-9]*")):
        try:
            content = manifest.read(path)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        name, sense = (*content.get("metric", ()), "", "min")[:2]
        value = manifest.metric_of(content.get("metrics", {}), str(name))
        if value is None:
            continue
        if best is None or (value < best["value"] if sense == "min" else value > best["value"]):
            # Checkpoints of older versions know one evaluator, and name its figures without it.
            figures = {
                _today(key if "/" in key else f"verification/{key}"): float(each)
                for key, each in content["metrics"].items()
                if _finite(each)
            }
            best = {
                "value": value,
                "figures": figures,
                "clock": content["clock"],
                "metric": (str(name) if "/" in str(name) else f"verification/{name}", sense),
            }
    return best


def by_job(runs: Sequence[Compared]) -> dict[str, list[Compared]]:
    """Return the runs of each job in their order; a scored file stands in each that has its kind of figures.

    Raises UserError for a scored file that fits none of them. Without runs all files are one table.
    """
    jobs: dict[str, list[Compared]] = {run.task: [] for run in runs if run.seed is not None}
    if not jobs:
        return {"": list(runs)}
    known = {
        job: {name for run in runs if run.seed is not None and run.task == job for name in run.figures}
        for job in jobs
    }
    for run in runs:
        fitting = [job for job in jobs if known[job] & run.figures.keys()]
        if run.seed is None and not fitting:
            few = ", ".join(list(run.figures)[:3]) or "no figures"
            raise UserError(
                f"{run.name} has {few}, none of which the runs of task {', '.join(jobs)} have: leave it out, "
                "or score a label that the task judges"
            )
        for job in fitting if run.seed is None else (run.task,):
            jobs[job].append(run)
    return jobs


def groups(runs: Sequence[Compared]) -> list[list[Compared]]:
    """Return the groups of two runs or more that agree in all but the seed, on one set, in their order."""
    found: dict[str, list[Compared]] = {}
    for run in runs:
        if run.seed is not None:
            key = repr((run.task, sorted(run.settings.items()), run.judged_on, run.digest))
            found.setdefault(key, []).append(run)
    return [group for group in found.values() if len(group) > 1]


def spread(group: Sequence[Compared]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation (of a sample) of each figure that all runs of the group have."""
    common = set.intersection(*(set(run.figures) for run in group))
    return {
        name: (statistics.fmean(values), statistics.stdev(values))
        for name in group[0].figures
        if name in common
        for values in [[run.figures[name] for run in group]]
    }


def differing(runs: Sequence[Compared]) -> list[str]:
    """Return the keys, less the seed, in which the configs of the runs differ."""
    settings = [run.settings for run in runs if run.seed is not None]
    keys = sorted(set().union(*settings)) if settings else []
    return [key for key in keys if len({repr(each.get(key)) for each in settings}) > 1]
