"""Judges a siamese run on a set: the figures of its network beside the untrained network and plain pixels.

`rostro evaluate` comes here through `Verification.assess`: one process reads the images, adds intervals and
draws curves. The threshold comes from the run's validation people.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.shard_set import ShardSet
from hpc.config.held_out import CHOSEN, UNKNOWN
from hpc.data import known_people
from hpc.evaluation import threshold
from hpc.evaluation.base import Report, Request, Table
from hpc.evaluation.pair_protocol import PairProtocol, score_run, trial
from hpc.metrics.verification import VerificationResult
from hpc.plots import roc
from hpc.task import cosine

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor

PIXELS = "pixels (32x32 grey)"


def pixels(images: np.ndarray) -> np.ndarray:
    """Return the baseline of images uint8 [n, s, s, 3]: grey, 32x32, less the mean, float32 [n, 1024]."""
    small = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    flat = np.stack(small).reshape(len(images), -1).astype(np.float32)
    return flat - flat.mean(1, keepdims=True)


def assess(model: "Predictor", request: Request) -> Report:
    """Judge `model` and the baselines as `request` asks: all pairs of its set, or those of a list.

    People whom the run was trained on raise UserError; `overlap` lets them pass, and then their threshold is
    not kept.
    """
    shards, keys = request.shards, request.keys
    pairs = Path(keys["pairs"]) if keys["pairs"] else None
    on = trial(shards, pairs=pairs, skip=keys["missing"] == "skip")
    trained = _trained(model, request, on, pairs)
    choosers = known_people.shared(request.people, shards, on.ids) if request.people else []
    validation = request.validation
    own = validation is not None and pairs is None and shards.digest == validation.digest
    made, kept = (None, True) if own or keys["keep"] else _chosen(model, request)
    judged = _judge_all(model, request, on)
    verdict, scores = judged[model.name]
    own_record = threshold.record(model, shards, on.note, verdict)
    facts = _describe(model, on) | {"rows": [{"name": n} | each.plain() for n, (each, _) in judged.items()]}
    facts |= _threshold_of(made or own_record, these_pairs=made is None, kept=kept)
    facts |= {
        "chosen_on_these_people": None if request.unknown else bool(choosers),
        "people_of_validation": None if request.unknown else len(choosers),
        "people_of_training": None if trained is None else len(trained),
        "at_threshold": threshold.rates(scores, on.pairs.same, facts["threshold"]),
    }
    report = Report(verdict.scalars(), intervals=dict(verdict.intervals), facts=facts)
    report.label = pairs.stem if pairs else ""
    report.title = _title(shards, facts)
    report.tables["figures"] = figures_table(facts["rows"])
    report.notes = [*_table_notes(facts, request.rounds), *_threshold_notes(facts)]
    if kept and made is None:
        report.after = lambda: threshold.keep(model.run, own_record)
    _add_pictures(report, model, on, {name: each for name, (_, each) in judged.items()})
    return report


def _trained(model: "Predictor", request: Request, on: PairProtocol, pairs: Path | None) -> list[str] | None:
    """Return the judged people who are of the training (None = not known); refuse what they would spoil."""
    shards = request.shards
    known = known_people.of_training(model.run, model.config.data.train)
    trained = known_people.shared_with_any(known, shards, on.ids)
    if trained and request.keys["overlap"] != "allow":
        where = f"pairs={pairs}" if pairs else f"data={shards.folder}"
        raise UserError(
            f"{where}: {len(trained)} of the {len(np.unique(on.identity))} people to be judged are of the "
            f"training, such as {trained[0]}: their figures say nothing of new people; give the held-out "
            "set, or overlap=allow"
        )
    if trained and request.keys["keep"]:
        raise UserError(
            "keep=true: a threshold of people of the training is too strict for others: leave it out"
        )
    return trained if known else None


def _judge_all(
    model: "Predictor", request: Request, on: PairProtocol
) -> dict[str, tuple[VerificationResult, np.ndarray]]:
    """Return figures and scores of the run's network, the untrained one and the pixels, by their names."""
    plain = model.untrained()
    parts: list[tuple[np.ndarray, ...]] = []
    for images in request.progress("embedding images", model.blocks(request.shards, on.ids)):
        parts.append((model.embed(images), plain.embed(images), pixels(images)))
    embeddings = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names, scorers = (model.name, plain.name, PIXELS), (model.score, plain.score, cosine)
    return {
        name: score_run(vectors, on, score=score, rounds=request.rounds, seed=model.config.seed)
        for name, vectors, score in zip(names, embeddings, scorers, strict=True)
    }


def _chosen(model: "Predictor", request: Request) -> tuple[dict[str, Any] | None, bool]:
    """Return the run's threshold, or choose it on its validation people now; and whether it was kept now."""
    shards = request.validation
    anew = request.own and not request.keys["pairs"]
    record = None if anew and shards else threshold.stored(model)
    if record or shards is None:
        return record, False
    on = trial(shards, pairs=None, skip=False)
    what = f"choosing the threshold on {shards.manifest.get('split') or shards.name}"
    blocks = request.progress(what, model.blocks(shards, on.ids))
    embeddings = np.concatenate([model.embed(images) for images in blocks])
    verdict, _ = score_run(embeddings, on, score=model.score, rounds=0, seed=model.config.seed)
    record = threshold.record(model, shards, on.note, verdict)
    threshold.keep(model.run, record)
    return record, True


def _threshold_of(record: dict[str, Any], *, these_pairs: bool, kept: bool) -> dict[str, Any]:
    """Return the part of a report that says which threshold it used, and where it came from."""
    origin = {key: record[key] for key in ("set", "split", "manifest_sha256", "eer")}
    return {
        "threshold": record["threshold"],
        "threshold_from": origin | {"these_pairs": these_pairs},
        "kept": kept,
    }


def _describe(model: "Predictor", on: PairProtocol) -> dict[str, Any]:
    return {
        "pictures": len(on.ids),
        "identities": len(np.unique(on.identity)),
        "trial": on.note
        | {
            "genuine": int(on.pairs.same.sum()),
            "impostors": int((~on.pairs.same).sum()),
            "genuine_in_all": on.pairs.total_genuine,
            "impostors_in_all": on.pairs.total_impostors,
            "accuracy": "mean of both kinds of pairs" if on.pairs.balanced else "share of the listed pairs",
        },
        "decoder": "host, centre square",
        "score": model.unit,
    }


def _add_pictures(
    report: Report, model: "Predictor", on: PairProtocol, scores: dict[str, np.ndarray]
) -> None:
    facts, same = report.facts, on.pairs.same

    def where(path: Path) -> str:
        return f"{path.parent.name}: {facts['pictures']:,} images of {facts['identities']:,} people"

    def draw_roc(path: Path) -> None:
        roc.draw_roc(path, {name: (values, same) for name, values in scores.items()}, title=where(path))

    def draw_scores(path: Path) -> None:
        title = f"{model.name}\n{where(path)}"
        limit = facts["threshold"]
        roc.draw_scores(path, scores[model.name], same, threshold=limit, title=title, unit=model.unit)

    report.figures |= {"roc.png": draw_roc, "scores.png": draw_scores}


def _title(shards: ShardSet, facts: dict[str, Any]) -> str:
    """Return the first line of the report: the set, its people and its pairs."""
    trial = facts["trial"]
    genuine, impostors = trial["genuine"], trial["impostors"]
    drawn = f" drawn of {trial['impostors_in_all']:,}" if trial["impostors_in_all"] > impostors else ""
    text = f"{shards.name} {shards.manifest.get('split') or ''}".strip()
    text += f": {facts['pictures']:,} images of {facts['identities']:,} people, "
    text += f"{genuine:,} genuine and {impostors:,} impostor pairs{drawn}"
    if "listed" in trial:
        text += f"; {trial['usable']:,} of {trial['listed']:,} pairs of {trial['file']} "
        text += f"({trial['format']}) are usable"
    return text


def figures_table(rows: list[dict[str, Any]]) -> Table:
    rates = list(rows[0]["tar"])
    columns = ("", "EER", "AUC", "accuracy", *(f"TAR@{rate.removeprefix('far=')}" for rate in rates))
    cells = []
    for row in rows:
        tars = [f"{row['tar'][rate]:.3f}" if row["tar"][rate] is not None else "-" for rate in rates]
        cells.append((row["name"], _figure(row, "eer"), _figure(row, "auc"), _accuracy(row), *tars))
    return Table(columns, cells)


def _figure(row: dict[str, Any], name: str) -> str:
    """Return a figure with its interval."""
    interval = row["intervals_95"].get(name)
    return f"{row[name]:.3f}" + (f" [{interval[0]:.3f} {interval[1]:.3f}]" if interval else "")


def _accuracy(row: dict[str, Any]) -> str:
    """Return the mean accuracy of the folds and its deviation."""
    folds = row["accuracy"]
    return f"{folds['mean']:.3f} ± {folds['std']:.3f}" if folds else "-"


def _table_notes(facts: dict[str, Any], rounds: int) -> list[str]:
    few = "; -: fewer impostor pairs than 10 / FAR" if None in facts["rows"][0]["tar"].values() else ""
    notes = [
        f"  accuracy: {facts['trial']['accuracy']}, threshold from the other folds",
        f"  TAR@x: true accept rate where the false accept rate is x{few}",
    ]
    return notes + ([f"  [lo hi]: 95 %, {rounds} resamples of the people"] if rounds else [])


def _threshold_notes(facts: dict[str, Any]) -> list[str]:
    """Return the lines on the threshold: its origin, its effect, and whether these people chose it."""
    origin, rates = facts["threshold_from"], facts["at_threshold"]
    place = f"{origin['set']} {origin['split'] or ''}".strip()
    source = (
        "of these pairs" if origin["these_pairs"] else f"chosen on {place}, EER {origin['eer']:.3f} there"
    )
    lines = [
        f"threshold {facts['threshold']:.4f} ({facts['score']}), {source}"
        + ("; kept for `rostro verify`" if facts["kept"] else ""),
        f"  it accepts {rates['false_accepts']:.1%} of the impostor pairs here "
        f"and rejects {rates['false_rejects']:.1%} of the genuine ones",
    ]
    if facts["chosen_on_these_people"]:
        some = facts["people_of_validation"], facts["identities"]
        lines.append(f"note: {CHOSEN}" + (f" ({some[0]} of {some[1]})" if some[0] < some[1] else ""))
    if facts["chosen_on_these_people"] is None:
        lines.append(f"note: {UNKNOWN}")
    if facts["people_of_training"]:
        lines.append(f"note: {facts['people_of_training']} of these people are in the training set")
    if facts["people_of_training"] is None:
        lines.append("note: it is not known whom this run was trained on: its people could not be compared")
    return lines
