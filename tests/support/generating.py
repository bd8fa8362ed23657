"""A task that generates images from latents, a small network of features, and their judgement by rank."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.shard_format.shard_set import ShardSet
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet, Report, Request
from hpc.evaluation.features import FeatureNetwork
from hpc.evaluation.generated import Generated
from hpc.evaluation.run import evaluate, figures, walk
from hpc.inference.judge import evaluators_of
from hpc.inference.predictor import load_run
from hpc.inference.run_features import open_any
from hpc.task import Task

SIDE = 16  # pixels of what is generated


class Dreams(Task):
    """Predicts images from the latents `z`; poisoned: that of position 3 is NaN; silent: none."""

    def __init__(self, make: Any, *, poisoned: bool = False, silent: bool = False) -> None:
        super().__init__(None)
        self.evaluators = {"generated": make}
        self.poisoned, self.silent = poisoned, silent

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        images = nets["G"](batch.latents("z", 6)).tanh().reshape(-1, 3, SIDE, SIDE)
        if self.poisoned:
            images = torch.where((batch.positions == 3)[:, None, None, None], torch.nan, images)
        return {} if self.silent else {"image": images}


def small_features(word: str = "small", sha256: str = "", *, side: int = 12) -> FeatureNetwork:
    """Ten features and four classes of a convolution with weights by the hash of `word`."""
    digest = hashlib.sha256(word.encode()).hexdigest()
    drawn = torch.Generator().manual_seed(int(digest[:8], 16))
    weight = torch.randn(10, 3, 5, 5, generator=drawn) * 0.3
    last = torch.randn(4, 10, generator=drawn)

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.conv2d(images, weight, stride=3).relu().mean((2, 3))
        return features, features @ last.T

    return FeatureNetwork("inception" if word == "inception" else "small", digest, compute, side=side)


def dreams(comm: Comm, shards: str, cache: str, options: dict[str, Any]) -> Report:
    """The report of generated images against a packed set ("" = none)."""
    os.environ["XDG_CACHE_HOME"] = cache
    torch.manual_seed(0)
    nets = {"G": nn.Linear(6, 3 * SIDE * SIDE)}
    faults = {name: options.pop(name, False) for name in ("poisoned", "silent")}
    settings = {
        "features": "small",
        "samples": 22,
        "side": 16,
        "block": 4,
        "opener": small_features,
    } | options
    typed = settings.pop("typed", {})

    def make() -> Generated:
        evaluator = Generated(**settings)
        evaluator.typed = typed
        return evaluator

    def none(comm: Comm) -> Iterable[Batch]:
        return ()

    judged = JudgedSet(none, ShardSet.open(Path(shards)) if shards else None)
    reports, _ = evaluate(Dreams(make, **faults), nets, judged, comm, channels_last=False)
    report = reports["generated"]
    if not comm.main:
        assert not report.tables
    report.figures, report.after = {name: None for name in report.figures}, None  # type: ignore[misc]
    return report


def scalars(comm: Comm, shards: str, cache: str, options: dict[str, Any]) -> dict[str, float]:
    return dreams(comm, shards, cache, dict(options)).scalars


def scalars_twice(comm: Comm, shards: str, cache: str) -> tuple[dict[str, float], dict[str, float]]:
    """Scalars by features that are computed, then by those that are kept."""
    return scalars(comm, shards, cache, {}), scalars(comm, shards, cache, {})


def scalars_of_run(comm: Comm, run: str, shards: str, cache: str, typed: dict[str, Any]) -> dict[str, float]:
    """The figures of what a run generates, as `rostro evaluate` computes them, on all ranks."""
    os.environ["XDG_CACHE_HOME"] = cache
    model, judged = load_run(run), ShardSet.open(Path(shards))
    evaluators = evaluators_of(model, typed)
    for each in evaluators.values():
        each.assess(model, Request(judged, each.typed, open_features=open_any))
    walk(model.task, model.nets, evaluators, JudgedSet(lambda comm: (), judged), comm, channels_last=False)
    return figures(evaluators["generated"], comm).scalars
