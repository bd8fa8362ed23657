"""Judges a run on a held-out set by the evaluators of its task, and writes the report: `rostro evaluate`.

An evaluator may judge in a way of its own (`Evaluator.assess`: baselines, pair lists). All others share one
walk over the set; what is chosen (a temperature) is chosen on the run's val set.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from hpc.config import held_out
from hpc.data import known_people, views
from hpc.distributed.comm import Comm
from hpc.evaluation import chosen
from hpc.evaluation import report as report_file
from hpc.evaluation import run as evaluation
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Request
from hpc.evaluation.baselines import Baselines, add_baselines
from hpc.evaluation.keys import MAX_GAP
from hpc.inference import recompressed
from hpc.inference.explain import add_sheets
from hpc.inference.predictor import Predictor
from hpc.inference.run_features import open_any
from hpc.metrics.groups import Groups, groups_of
from hpc.monitor import report_events


def judge(
    model: Predictor, request: Request, typed: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Report]]:
    """Judge `model` as `request` asks; return what report.json holds, and the reports by evaluator.

    typed: the evaluators' words that were typed, of all of them, or of one as in `age.gate.max_gap`.
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
    content = report_file.write(folder, head, reports)
    report_events.write(folder, model.clock, reports)
    return content, reports


def evaluators_of(model: Predictor, typed: Mapping[str, Any]) -> dict[str, Evaluator]:
    """Make the evaluators of the run's task with the words that were typed; UserError for one of none."""
    evaluators = {name: make() for name, make in model.task.judged_by.items()}
    task = model.config.task["name"]
    if not evaluators:
        raise UserError(f"task {task} has no evaluators: there is nothing to judge {model.run} by")
    named = set()  # of those of which a word was typed
    for name, each in evaluators.items():
        own = {word: typed[key] for word in each.KEYS if (key := f"{name}.{word}") in typed}
        shared = {word: value for word, value in typed.items() if word in each.KEYS}
        if not each.share:
            shared.pop(MAX_GAP, None)
        each.typed = {word: key.default for word, key in each.KEYS.items()} | shared | own
        named |= {name} if shared or own else set()
    known = {word for each in evaluators.values() for word in each.KEYS}
    known |= {f"{name}.{word}" for name, each in evaluators.items() for word in each.KEYS}
    for name, value in typed.items():
        if name not in known:
            words = ", ".join(f"{word}=" for word in sorted(known) if not _of_one(word, evaluators)) or "none"
            raise UserError(
                f"{name}={value} does not belong to task {task} of {model.run.name}: its evaluators "
                f"({', '.join(evaluators)}) take {words}"
            )
    if MAX_GAP in typed and not any(each.share for each in evaluators.values() if MAX_GAP in each.KEYS):
        one = next(name for name, each in evaluators.items() if MAX_GAP in each.KEYS)
        raise UserError(
            f"{MAX_GAP}={typed[MAX_GAP]} is a share, and task {task} has no figure of that kind: type "
            f"{one}.{MAX_GAP}={typed[MAX_GAP]}, in its unit"
        )
    return {name: each for name, each in evaluators.items() if each.asked or name in named} or evaluators


def _of_one(word: str, evaluators: Mapping[str, Evaluator]) -> bool:
    return word.partition(".")[0] in evaluators


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
    _add_baselines(model, request, evaluators, reports, groups)
    _add_recompressed(model, request, evaluators, reports, groups)
    notes = _notes(model, request, same=same)
    place = f"{shards.name} {shards.manifest.get('split') or ''}".strip()
    for name, each in evaluators.items():
        report = reports[name]
        report.chosen = dict(each.chosen)
        report.title = f"{place}: {len(shards):,} images"
        report.notes += notes
        report.facts |= {"chosen_on_these_people": same}
        if request.rounds and report.intervals:
            report.notes.insert(0, f"  [lo hi]: 95 %, {request.rounds} resamples of {_units(groups)}")
    kept = {name: each.chosen for name, each in evaluators.items() if each.chosen}
    if kept and same is not None:
        next(iter(reports.values())).after = lambda: chosen.keep(model, request.validation, kept)
    return reports


def _add_baselines(
    model: Predictor,
    request: Request,
    evaluators: dict[str, Evaluator],
    reports: dict[str, Report],
    groups: Groups,
) -> None:
    wanted = [name for name, each in evaluators.items() if each.typed.get("baselines")]
    if not wanted:
        return
    if request.training is None:
        reports[wanted[0]].notes.append("note: the training set is not there: there are no baselines")
        return

    def blocks(shards: Any, ids: np.ndarray) -> Iterable[np.ndarray]:
        found: Iterable[np.ndarray] = request.progress("baselines", model.blocks(shards, ids))
        return found

    both = Baselines(request.training, request.shards, blocks)
    for name in wanted:
        field = getattr(evaluators[name], "field", name)
        if field in request.training.labels:
            others = both.reports(model.task.evaluators[name], field, groups, request.rounds)
            add_baselines(reports[name], others, evaluators[name].headline, name=model.name)


def _add_recompressed(
    model: Predictor,
    request: Request,
    evaluators: dict[str, Evaluator],
    reports: dict[str, Report],
    groups: Groups,
) -> None:
    """Judge the set again in each quality that was typed, by what was chosen on the images as they are."""
    wanted = {
        name: qualities
        for name, each in evaluators.items()
        if (qualities := recompressed.qualities(str(each.typed.get("recompress", ""))))
    }
    found: dict[str, dict[int, Report]] = {name: {} for name in wanted}
    for quality in sorted({quality for each in wanted.values() for quality in each}, reverse=True):
        again = {name: model.task.evaluators[name]() for name, each in wanted.items() if quality in each}
        for name, each in again.items():
            each.chosen, each.chosen_on = evaluators[name].chosen, evaluators[name].chosen_on
        comm, what = Comm(device=_device(model)), f"judging JPEGs of quality {quality}"
        _walk(model, again, request.shards, comm, request, what, quality=quality)
        for name, each in again.items():
            alone = Groups(units=groups.units)
            found[name][quality] = evaluation.figures(each, comm, groups=alone, rounds=request.rounds)
    for name, others in found.items():
        recompressed.add_table(reports[name], others, evaluators[name].headline)


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
            each.typed = evaluators[name].typed
            evaluators[name].chosen = each.choose(evaluation.gathered(each.rows(), Comm()))
            evaluators[name].chosen_on = where


def _device(model: Predictor) -> torch.device:
    return next(next(iter(model.nets.values())).parameters()).device


def _walk(
    model: Predictor,
    evaluators: dict[str, Evaluator],
    shards: Any,
    comm: Comm,
    request: Request,
    what: str,
    *,
    quality: int = 0,
) -> None:
    """Show the set to the evaluators; `quality`: of JPEGs that its images first become (0 = as is)."""
    config = model.config

    def batches(comm: Comm) -> Iterable[Batch]:
        loader: Any = EvalLoader(
            shards,
            rank=0,
            world=1,
            batch=config.eval.batch,
            view=views.evaluation(config, config.data.size),
            backend="host",
            threads=config.data.threads,
            fields=model.task.plan.fields("eval"),
        )
        shown: Iterable[Batch] = request.progress(
            what, recompressed.Recompressed(loader, quality) if quality else loader
        )
        return shown

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
