"""The classifiers: what one image shows, as classes, marks and numbers; one backbone, a head for each label.

A job is a yaml with `task.kind: classifier`: which labels, which loss for each, which backbone. Losses are in
`hpc/losses/heads.py`, the network in `models/classifier.py`, the figures in `hpc/evaluation/classes.py` and
`values.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.ops.base import Op
from data_shards.ops.cutmix import Cutmix
from data_shards.ops.erasing import Erasing
from data_shards.ops.jpeg import Jpeg
from data_shards.ops.mixing import MIX, PARTNER
from data_shards.ops.mixup import Mixup
from data_shards.ops.randaugment import RandAugment
from hpc.config.heads import kind_of
from hpc.evaluation.base import Evaluator
from hpc.evaluation.classes import Bits, Classes
from hpc.evaluation.values import Values
from hpc.losses.heads import HEADS, Head
from hpc.task import Batch, Group, Phase, Task
from hpc.tasks.classifier_plan import UNIT
from models.backbones import build_trunk
from models.classifier import Classifier as Network

FIGURES = {"class": ("accuracy", "max"), "bits": ("accuracy", "max"), "value": ("mae", "min")}


class Classifier(Task):
    """Predicts the labels that `task.heads` names. The first head names the best checkpoint."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        heads = config.task["heads"]
        self.heads: dict[str, Head] = {
            field: HEADS[kind_of(keys)](field, keys) for field, keys in heads.items()
        }
        self.weights: dict[str, Tensor | None] = dict.fromkeys(heads)  # of classes or bits
        first = next(iter(heads))
        figure, better = FIGURES[kind_of(heads[first])]
        self.metric = (f"{first}/{figure}", better)
        self.evaluators = {field: _evaluator(field, keys) for field, keys in heads.items()}

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        trunk, features = build_trunk(keys["backbone"], keys["width"] or None)
        outputs = {field: head.outputs for field, head in self.heads.items()}
        return {"net": Network(trunk, features, outputs, dropout=keys["dropout"])}

    def groups(self, player: str) -> dict[str, Group]:
        rate = self.config.task["backbone_lr"]
        return {} if rate == 1 else {"backbone.*": Group(lr=rate)}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("classify", "net")]

    def begin(self, sets: Mapping[str, Any]) -> None:
        for field, head in self.heads.items() if "train" in sets else ():
            balance = head.balance(sets["train"].labels[field])
            self.weights[field] = torch.tensor(balance, device=self.comm.device) if balance else None

    def ops(self, clock: int) -> list[Op]:
        keys = self.config.task["augment"]
        listed: list[Op] = []
        if keys["randaugment"]:
            listed.append(RandAugment(count=keys["randaugment"], magnitude=keys["magnitude"]))
        if keys["jpeg"]:
            listed.append(Jpeg(quality=(40, 95), share=keys["jpeg"]))
        if keys["mixup"]:
            listed.append(Mixup(alpha=keys["mixup"], unit=UNIT))
        if keys["cutmix"]:
            listed.append(Cutmix(alpha=keys["cutmix"], share=0.5, unit=UNIT))
        if keys["erasing"]:
            listed.append(Erasing(share=keys["erasing"]))
        return listed

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        outputs = nets["net"](batch.images["image"])
        total = torch.zeros((), device=batch.device)
        for field, head in self.heads.items():
            weights, label = self.weights[field], batch.labels[field]
            loss = head.loss(outputs[field], label, weights)
            if MIX in batch.labels:
                mix = batch.labels[MIX]
                partner = head.loss(outputs[field], batch.labels[field + PARTNER], weights)
                loss = mix * loss + (1 - mix) * partner
            mean = loss.mean()
            if len(self.heads) > 1:
                self.report(field, mean.detach())
            total = total + head.weight * mean
        return total

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return logits [n, k] of each class and each bit, and numbers [n], by label."""
        outputs = nets["net"](batch.images["image"])
        return {field: head.predict(outputs[field]) for field, head in self.heads.items()}


def _evaluator(field: str, keys: Mapping[str, Any]) -> Callable[[], Evaluator]:
    kind = kind_of(keys)
    if kind == "value":
        return lambda: Values(field, unit=keys["unit"])
    if kind == "bits":
        return lambda: Bits(field, names=tuple(keys["names"]))
    names, far = tuple(keys["classes"]), keys.get("far", 0.0)  # runs of before the key have none
    return lambda: Classes(field, names=names, far=far, positive=names[-1] if far else "")


def build(config: Any) -> Classifier:
    """Build the task; `hpc.task.build_task` calls it."""
    return Classifier(config)
