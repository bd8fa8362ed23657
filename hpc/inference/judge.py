"""Judges a run on a held-out set by the evaluators of its task, and writes the report: `rostro evaluate`.

An evaluator may judge in a way of its own (`Evaluator.assess`: baselines, pair lists). All others share one
walk over the set; what is chosen (a temperature) is chosen on the run's val set.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from hpc.config import held_out
from hpc.data import known_people, views
from hpc.distributed.comm import Comm
from hpc.evaluation import report as report_file
from hpc.evaluation import run as evaluation
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Request
from hpc.inference.explain import add_sheets
from hpc.inference.predictor import Predictor
from hpc.inference.run_features import open_any
from hpc.metrics.groups import Groups, groups_of


def judge(
    model: Predictor, request: Request, typed: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Report]]:
    """Judge `model` as `request` asks; return what report.json holds, and the reports by evaluator.

    typed: the evaluators' words that were typed, of all of them.
    """
    started = time.perf_counter()
    request.open_features = request.open_features or open_any
    evaluators = evaluators_of(model, typed)
    reports: dict[str, Report] = {}
    for name, each in evaluators.items():
        request.keys = each.typed
        own = each.assess(model, request)
        if own is not None:
            reports[name] = own
    rest = {name: each for name, each in evaluators.items() if name not in reports}
    if rest:
        reports |= _judge_together(model, request, rest, typed)
    reports = {name: reports[name] for name in evaluators}
    add_sheets(model, request.shards, evaluators, reports)
    label = "-".join(filter(None, (each.label for each in reports.values())))
    folder = model.run / "evaluations" / report_file.folder_name(request.shards, label)
    head = _head(model, request) | {"seconds": round(time.perf_counter() - started, 2)}
    return report_file.write(folder, head, reports), reports


def evaluators_of(model: Predictor, typed: Mapping[str, Any]) -> dict[str, Evaluator]:
    """Make the evaluators of the run's task with the words that were typed; UserError for one of none."""
    evaluators = {name: make() for name, make in model.task.judged_by.items()}
    task = model.config.task["name"]
    if not evaluators:
        raise UserError(f"task {task} has no evaluators: there is nothing to judge {model.run} by")
    for each in evaluators.values():
        defaults = {name: key.default for name, key in each.KEYS.items()}
        each.typed = defaults | {name: value for name, value in typed.items() if name in defaults}
    known = {name for each in evaluators.values() for name in each.KEYS}
    for name, value in typed.items():
        if name not in known:
            words = ", ".join(f"{word}=" for word in sorted(known)) or "none"
            raise UserError(
                f"{name}={value} does not belong to task {task} of {model.run.name}: its evaluators "
                f"({', '.join(evaluators)}) take {words}"
            )
    return evaluators


def _head(model: Predictor, request: Request) -> dict[str, Any]:
    shards = request.shards
    return {
        "run": model.run.name,
        "task": model.config.task["name"],
        "checkpoint": model.clock,
        "weights": model.weights,
        "set": shards.name,
        "split": shards.manifest.get("split"),
        "manifest_sha256": shards.digest,
        "samples": len(shards),
        "bootstrap": request.rounds,
    }


def _judge_together(
    model: Predictor, request: Request, evaluators: dict[str, Evaluator], typed: Mapping[str, Any]
) -> dict[str, Report]:
    shards = request.shards
    wanted = str(typed.get("groups", ""))
    groups = groups_of(shards, [name.strip() for name in wanted.split(",") if name.strip()])
    # whether this set chose the checkpoint (None = the set that did is not there any more)
    same = None if request.validation is None else request.validation.digest == shards.digest
    _choose(model, request, evaluators, same=same)
    comm = Comm(device=_device(model))
    _walk(model, evaluators, shards, comm, request, "judging images")
    reports = {
        name: evaluation.figures(each, comm, groups=groups, rounds=request.rounds)
        for name, each in evaluators.items()
    }
    notes = _notes(model, request, same=same)
    place = f"{shards.name} {shards.manifest.get('split') or ''}".strip()
    for name, each in evaluators.items():
        report = reports[name]
        report.chosen = dict(each.chosen)
        report.title = f"{place}: {len(shards):,} images"
        report.notes += notes
        report.facts |= {"chosen_on_these_people": same}
        if request.rounds:
            report.notes.insert(0, f"  [lo hi]: 95 %, {request.rounds} resamples of {_units(groups)}")
    return reports


def _choose(
    model: Predictor, request: Request, evaluators: dict[str, Evaluator], *, same: bool | None
) -> None:
    """Let the evaluators that choose something do so on the val set, or else on the judged one."""
    on, where = (request.validation, "val") if same is False else (request.shards, "these images")
    choosing = {
        name: model.task.judged_by[name]()
        for name, each in evaluators.items()
        if type(each).choose is not Evaluator.choose
    }
    if choosing:
        _walk(model, choosing, on, Comm(device=_device(model)), request, f"choosing on {where}")
        for name, each in choosing.items():
            evaluators[name].chosen = each.choose(evaluation.gathered(each.rows(), Comm()))
            evaluators[name].chosen_on = where


def _device(model: Predictor) -> torch.device:
    return next(next(iter(model.nets.values())).parameters()).device


def _walk(
    model: Predictor, evaluators: dict[str, Evaluator], shards: Any, comm: Comm, request: Request, what: str
) -> None:
    config = model.config

    def batches(comm: Comm) -> Iterable[Batch]:
        loader = EvalLoader(
            shards,
            rank=0,
            world=1,
            batch=config.eval.batch,
            view=views.evaluation(config, config.data.size),
            backend="host",
            threads=config.data.threads,
            fields=model.task.plan.fields("eval"),
        )
        return request.progress(what, loader)

    judged = JudgedSet(batches, shards)
    evaluation.walk(model.task, model.nets, evaluators, judged, comm, channels_last=config.channels_last)


def _units(groups: Groups) -> str:
    return "the images" if groups.units is None else "the people"


def _notes(model: Predictor, request: Request, *, same: bool | None) -> list[str]:
    """Return the lines on who chose the checkpoint, and whether these samples are of the training."""
    notes = []
    if same:
        notes.append(f"note: {held_out.CHOSEN}")
    if same is None and held_out.validation(model.config.data):
        notes.append(f"note: {held_out.UNKNOWN}")
    known = known_people.of_training(model.run, model.config.data.train)
    trained = known_people.shared_with_any(known, request.shards)
    if trained:
        notes.append(f"note: {len(trained)} of these people are in the training set, such as {trained[0]}")
    if not known:
        notes.append("note: it is not known what this run was trained on: it could not be compared")
    return notes
