"""Judges a run on a set: the figures of its network beside the untrained network and plain pixels.

`rostro evaluate` prints what this returns: one process reads the images, adds intervals and draws curves.
The threshold comes from the run's validation people. The evaluation while training is in
`hpc/training/validation.py`.
"""

import functools
import os
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_shards.errors import UserError
from data_shards.files import write_json
from data_shards.shard_format.keys import member_key
from data_shards.shard_format.shard_set import ShardSet
from hpc.data import known_people
from hpc.data.known_people import People
from hpc.inference import threshold
from hpc.inference.predictor import ImageBlocks, Predictor, untrained
from hpc.metrics.pair_list import check_people, read_list, resolve
from hpc.metrics.pairs import Pairs, all_pairs
from hpc.metrics.verification import VerificationResult, bootstrap, measure, score_pairs
from hpc.plots import roc
from hpc.task import Score, cosine

PIXELS = "pixels (32x32 grey)"
Progress = Callable[[str, ImageBlocks], Any]  # what wraps the loop over images: a progress bar


@dataclass
class PairProtocol:
    """The comparisons of an evaluation: pairs of rows, the rows' samples and people, and their origin."""

    pairs: Pairs
    ids: np.ndarray  # [m] ascending sample ids
    identity: np.ndarray  # [m]
    note: dict[str, Any]  # for the report


def pixels(images: np.ndarray) -> np.ndarray:
    """Return the baseline of images uint8 [n, s, s, 3]: grey, 32x32, less the mean, float32 [n, 1024]."""
    small = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    flat = np.stack(small).reshape(len(images), -1).astype(np.float32)
    return flat - flat.mean(1, keepdims=True)


def trial(shards: ShardSet, *, pairs: Path | None, skip: bool) -> PairProtocol:
    """Return all pairs of the set, or those of the list `pairs`; `skip` leaves out absent images."""
    identity = np.asarray(shards.labels["identity"], np.int64)
    if pairs is None:
        return PairProtocol(
            all_pairs(identity), np.arange(len(shards)), identity, {"kind": "all pairs of the set"}
        )
    listing = read_list(pairs)
    resolved = resolve(listing.pairs, finder(shards), path=pairs, skip=skip)
    check_people(resolved, identity[resolved.ids], path=pairs)
    note = {
        "kind": "pair list",
        "file": pairs.name,
        "format": listing.format,
        "listed": resolved.listed,
        "usable": resolved.listed - resolved.absent,
    }
    if resolved.absent:
        note["first_absent"] = resolved.first_absent
    return PairProtocol(resolved.pairs, resolved.ids, identity[resolved.ids], note)


def finder(shards: ShardSet) -> Callable[[str, int | None], int | None]:
    """Find images of a pair list, (name, number) or (path, None) -> sample id (None = not in the set).

    A list writes `José`, the shards hold its key (keys.py), and disks differ in how they compose the accent.
    Of a path the first folder counts that is a person of the set; the suffix does not.
    """
    names = shards.identity_names()
    index = {unicodedata.normalize("NFC", name): place for place, name in enumerate(names)}

    @functools.cache
    def rows(place: int) -> dict[str, int]:
        start, end = (int(row) for row in shards.identity_start[place : place + 2])
        members = {row: shards.member(row).removesuffix(".jpg") for row in range(start, end)}
        return {member.partition("/")[2]: row for row, member in members.items()}

    def of(name: str, stem: str) -> int | None:
        place = index.get(unicodedata.normalize("NFC", name))
        if place is None:
            return None
        return rows(place).get(member_key(names[place], stem).partition("/")[2])

    def find(name: str, number: int | None) -> int | None:
        if number is not None:
            place = index.get(unicodedata.normalize("NFC", name))
            return None if place is None else of(name, f"{names[place]}_{number:04d}")
        parts = name.split("/")
        for cut in range(1, len(parts)):
            inner = "/".join(parts[cut:])
            for stem in (inner, os.path.splitext(inner)[0]):
                if (row := of(parts[cut - 1], stem)) is not None:
                    return row
        return None

    return find


def score_run(
    embeddings: np.ndarray, on: PairProtocol, *, score: Score, rounds: int, seed: int
) -> tuple[VerificationResult, np.ndarray]:
    """Compute all figures of embeddings [m, d], and the scores [n] of the pairs.

    `rounds` of bootstrapping give the intervals (0 = none).
    """
    scores = score_pairs(embeddings, on.pairs, score)
    verdict = measure(scores, on.pairs)
    if rounds:
        verdict.intervals = bootstrap(scores, on.pairs, on.identity, rounds=rounds, seed=seed)
    return verdict, scores


@dataclass
class Choice:
    """How the threshold of a report is chosen."""

    validation: ShardSet | None = None  # the run's own set for it (None = it has none, or it is elsewhere)
    people: People | None = None  # those who chose checkpoint and threshold (None = none, or unknown)
    unknown: bool = False  # whether these people are not known
    anew: bool = False  # choose the threshold on them even where one is kept
    keep: bool = False  # keep the threshold of the judged pairs, whoever the people are


def assess(
    model: Predictor,
    shards: ShardSet,
    *,
    pairs: Path | None = None,
    skip: bool = False,
    rounds: int = 1000,
    overlap: bool = False,
    choice: Choice | None = None,
    progress: Progress = lambda text, blocks: blocks,
) -> dict[str, Any]:
    """Judge `model` and the baselines on `shards`; write RUN/evaluations/<name>/.

    People whom the run was trained on raise UserError; `overlap` lets them pass, and then their threshold is
    not kept. `pairs`, `skip`: as for `trial`; `rounds`: of bootstrapping.

    Returns the report: {"rows": [{"name", figures}], "set", "trial", "folder", "threshold", ...}.
    """
    started = time.perf_counter()
    choice = choice or Choice()
    on = trial(shards, pairs=pairs, skip=skip)
    known = known_people.read(model.run, model.config.data.train)
    trained = known_people.shared(known, shards, on.ids) if known else []
    if trained and not overlap:
        where = f"pairs={pairs}" if pairs else f"data={shards.folder}"
        raise UserError(
            f"{where}: {len(trained)} of the {len(np.unique(on.identity))} people to be judged are of the "
            f"training, such as {trained[0]}: their figures say nothing of new people; give the held-out "
            "set, or overlap=allow"
        )
    if trained and choice.keep:
        raise UserError(
            "keep=true: a threshold of people of the training is too strict for others: leave it out"
        )
    choosers = _choosers(choice, shards, on)
    own = choice.validation is not None and pairs is None and shards.digest == choice.validation.digest
    made, kept = (None, True) if own or choice.keep else _chosen(model, choice, progress)
    plain = untrained(model)
    parts: list[tuple[np.ndarray, ...]] = []
    for images in progress("embedding images", ImageBlocks(shards, on.ids, model.config.data.size)):
        parts.append((model.embed(images), plain.embed(images), pixels(images)))
    embeddings = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names = (model.name, plain.name, PIXELS)
    scorers = (model.score, plain.score, cosine)
    judged = {
        name: score_run(vectors, on, score=score, rounds=rounds, seed=model.config.seed)
        for name, vectors, score in zip(names, embeddings, scorers, strict=True)
    }
    rows = [{"name": name} | verdict.plain() for name, (verdict, _) in judged.items()]
    verdict, scores = judged[model.name]
    own_record = threshold.record(model, shards, on.note, verdict)
    report = _describe(model, shards, on) | {"bootstrap": rounds, "rows": rows}
    report |= _threshold_of(made or own_record, these_pairs=made is None, kept=kept)
    report |= {
        "chosen_on_these_people": None if choice.unknown else bool(choosers),
        "people_of_validation": None if choice.unknown else len(choosers),
        "people_of_training": len(trained) if known else None,
    }
    report["at_threshold"] = threshold.rates(scores, on.pairs.same, report["threshold"])
    folder = model.run / "evaluations" / _name(shards, pairs)
    folder.mkdir(parents=True, exist_ok=True)
    report["folder"] = str(folder)
    _draw(folder, model, on, {name: scores for name, (_, scores) in judged.items()}, report)
    report["seconds"] = round(time.perf_counter() - started, 2)
    write_json(folder / "report.json", report)
    if kept and made is None:
        threshold.keep(model.run, own_record)
    return report


def _choosers(choice: Choice, shards: ShardSet, on: PairProtocol) -> list[str]:
    """Return the judged people who are among those that chose checkpoint and threshold."""
    return known_people.shared(choice.people, shards, on.ids) if choice.people else []


def _chosen(model: Predictor, choice: Choice, progress: Progress) -> tuple[dict[str, Any] | None, bool]:
    """Return the run's threshold, or choose it on its validation people now; and whether it was kept now."""
    record = None if choice.anew and choice.validation else threshold.stored(model)
    if record or choice.validation is None:
        return record, False
    shards = choice.validation
    on = trial(shards, pairs=None, skip=False)
    blocks = ImageBlocks(shards, on.ids, model.config.data.size)
    what = f"choosing the threshold on {shards.manifest.get('split') or shards.name}"
    embeddings = np.concatenate([model.embed(images) for images in progress(what, blocks)])
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


def _name(shards: ShardSet, pairs: Path | None) -> str:
    split = shards.manifest.get("split") or ""
    return "-".join(part for part in (shards.name, split, pairs.stem if pairs else "") if part)


def _describe(model: Predictor, shards: ShardSet, on: PairProtocol) -> dict[str, Any]:
    return {
        "run": model.run.name,
        "checkpoint": model.clock,
        "weights": model.weights,
        "set": shards.name,
        "split": shards.manifest.get("split"),
        "manifest_sha256": shards.digest,
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


def _draw(
    folder: Path, model: Predictor, on: PairProtocol, scores: dict[str, np.ndarray], report: dict[str, Any]
) -> None:
    where = f"{folder.name}: {report['pictures']:,} images of {report['identities']:,} people"
    roc.draw_roc(
        folder / "roc.png", {name: (values, on.pairs.same) for name, values in scores.items()}, title=where
    )
    roc.draw_scores(
        folder / "scores.png",
        scores[model.name],
        on.pairs.same,
        threshold=report["threshold"],
        title=f"{model.name}\n{where}",
        unit=model.unit,
    )
