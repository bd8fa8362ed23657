"""`rostro compare`: runs in a table for each job, with mean and spread over their seeds."""

import json
from collections.abc import Sequence
from typing import Any

from data_shards.errors import UserError
from launch.options.key_value import is_place, parse
from launch.options.option import Option, option_lines
from launch.terminal import GAP, LAST, Column, table, width

OPTIONS = {
    "metric": Option(
        "",
        "figures to show, such as verification/eer,verification/auc; all (default: six)",
        placeholder="NAME,...",
    ),
    "report": Option(
        "", "which report: a folder in RUN/evaluations (default: the newest)", placeholder="NAME"
    ),
    "json": Option(False, "true: all figures as JSON"),
}
HELP = f"""
usage: rostro compare RUN RUN... [key=value ...]

Puts the runs of each job into a table: the figures of the last `rostro evaluate` of each, or else those of
its best checkpoint. Runs that agree in all keys but the seed have a row of their mean and standard deviation.
A folder that `rostro score` wrote may stand among them: another program's figures in the same table.

{option_lines(OPTIONS, {"RUN": "a run directory, or a report folder of `rostro score`"})}

example: rostro compare runs/age-seed=0 runs/age-seed=1 runs/gender-seed=0 runs/gender-seed=1
"""
SHOWN = 6  # figures, if none are named


def main(argv: list[str]) -> int:
    places = [word for word in argv if is_place(word)]
    keys = parse([word for word in argv if word not in places], OPTIONS)
    if not places:
        raise UserError("RUN is missing: add the runs to compare")
    if len(set(places)) < len(places):
        raise UserError(
            f"{next(word for word in places if places.count(word) > 1)} is named twice: name it once"
        )
    from hpc.evaluation import compared

    runs = [compared.read(place, report=keys.report) for place in places]
    jobs = compared.by_job(runs)
    if keys.json:
        print(json.dumps(_plain(runs, compared.groups(runs))))
        return 0
    _check_metric(runs, keys.metric)
    for number, (job, of) in enumerate(jobs.items()):
        if len(jobs) > 1:
            print(("\n" if number else "") + f"{job}:")
        _print_job(of, keys.metric)
    return 0


def _print_job(runs: Sequence[Any], metric: str) -> None:
    """Print the table of the runs of one job, and the notes below it."""
    from hpc.evaluation import compared

    groups, names = compared.groups(runs), _chosen(runs, metric)
    differing = [key for key in compared.differing(runs) if any(key in run.settings for run in runs)][:4]
    rows = [_row(run, names, differing) for run in runs]
    for group in groups:
        found = compared.spread(group)
        cells = [f"{found[name][0]:.4g} ± {found[name][1]:.2g}" if name in found else "-" for name in names]
        of = group[0]
        rows.append([f"mean of {len(group)} seeds", "", *_settings(of, differing), "", *cells, of.judged_on])
    shown = [name.removeprefix(_common(names)) for name in names]
    titles = ["run", "seed", *differing, "images", *shown, "judged on"]
    columns = [
        # Figures that find no room are left out, the last ones first.
        Column(title, cells, right=title in shown, spare=number if title in shown else 0)
        for number, (title, cells) in enumerate(zip(titles, zip(*rows, strict=True), strict=True))
    ]
    within = width()
    print("\n".join(table(columns, within)))
    if sum(column.width + len(GAP) for column in columns[:-1]) + min(columns[-1].width, LAST) > within:
        print("note: not all figures find room here: name some by metric=, or type json=true")
    for note in _notes(runs, groups):
        print(note)


def _common(names: Sequence[str]) -> str:
    """Return `<evaluator>/` where all figures are of one evaluator, else nothing."""
    evaluators = {name.rpartition("/")[0] for name in names}
    return f"{evaluators.pop()}/" if len(evaluators) == 1 else ""


def _settings(run: Any, differing: Sequence[str]) -> list[str]:
    return [str(run.settings.get(key, "")) for key in differing]


def _row(run: Any, names: Sequence[str], differing: Sequence[str]) -> list[str]:
    cells = [f"{run.figures[name]:.4g}" if name in run.figures else "-" for name in names]
    seed = "" if run.seed is None else str(run.seed)
    seen = "" if run.checkpoint is None else f"{run.checkpoint:,}"
    return [run.name, seed, *_settings(run, differing), seen, *cells, run.judged_on]


def _check_metric(runs: Sequence[Any], wanted: str) -> None:
    known = dict.fromkeys(name for run in runs for name in run.figures)
    for name in _named(wanted):
        if name not in known:
            raise UserError(f"metric={name} is not a figure of these runs: use {', '.join(list(known)[:12])}")


def _named(wanted: str) -> list[str]:
    return [] if wanted == "all" else [name.strip() for name in wanted.split(",") if name.strip()]


def _chosen(runs: Sequence[Any], wanted: str) -> list[str]:
    """Return the figures to show: those named, or the first ones, the runs' own metric before them."""
    known = list(dict.fromkeys(name for run in runs for name in run.figures))
    if wanted == "all":
        return known
    if named := [name for name in _named(wanted) if name in known]:
        return named
    first = [run.metric[0] for run in runs if run.metric[0] in known]
    return list(dict.fromkeys([*first, *known]))[:SHOWN]


def _notes(runs: Sequence[Any], groups: Sequence[Sequence[Any]]) -> list[str]:
    notes = []
    if groups:
        notes.append("  ±: standard deviation over the seeds")
    if len({(run.judged_on, run.digest) for run in runs if run.seed is not None or run.digest}) > 1:
        notes.append("note: these are not judged on the same set: give report=NAME, or evaluate them alike")
    return notes


def _plain(runs: Sequence[Any], groups: Sequence[Sequence[Any]]) -> dict[str, Any]:
    from hpc.evaluation import compared

    plain = [
        {"run": run.name, "task": run.task, "seed": run.seed, "judged_on": run.judged_on}
        | {"checkpoint": run.checkpoint, "figures": run.figures}
        for run in runs
    ]
    means = [
        {"runs": [run.name for run in group], "mean": {k: v[0] for k, v in found.items()}}
        | {"std": {k: v[1] for k, v in found.items()}}
        for group in groups
        for found in [compared.spread(group)]
    ]
    return {"runs": plain, "groups": means}
