"""Forty marks, yes or no each, and an age from one image, on images and labels mixed with a partner's."""

import torch
import torch.nn.functional as F
from torch import nn

from data_shards.ops.mixing import MIX, PARTNER
from data_shards.ops.mixup import Mixup
from hpc.evaluation.classes import Bits
from hpc.evaluation.values import Values
from hpc.task import Phase, Task

YEARS = 100.0  # the network's output 1.0


class Marks(Task):
    metric = ("age/mae", "min")
    evaluators = {"marks": lambda: Bits("marks"), "age": lambda: Values("age", unit="years")}  # noqa: RUF012

    def players(self):
        trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        return {"net": nn.Sequential(trunk, nn.Flatten(), nn.Linear(32, 41))}

    def phases(self, clock):
        return [Phase("fit", "net")]

    def ops(self, clock):
        return [Mixup(alpha=self.config.task["alpha"], unit=4)]

    def loss(self, phase, nets, batch, clock):
        out, mix = nets["net"](batch.images["image"]), batch.labels[MIX]
        loss = mix * self.distance(out, batch, "") + (1 - mix) * self.distance(out, batch, PARTNER)
        self.report("years", (loss.detach() * YEARS).mean())
        return loss.mean()

    def distance(self, out, batch, whose):
        """The losses [n] of both by the labels of the slots themselves, or of their partners; -1: unknown."""
        bits, age = batch.labels["marks" + whose], batch.labels["age" + whose]
        by_bit = F.binary_cross_entropy_with_logits(out[:, :40], bits.clamp(0).float(), reduction="none")
        known = (bits >= 0).float()
        by_age = torch.where(age >= 0, (out[:, 40] - age / YEARS).abs(), 0.0)
        return (by_bit * known).sum(1) / known.sum(1).clamp(1) + by_age

    def predict(self, nets, batch):
        out = nets["net"](batch.images["image"]).float()
        return {"marks": out[:, :40], "age": out[:, 40] * YEARS}


def build(config):
    return Marks(config)
