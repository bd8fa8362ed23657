"""A head is trained on a trunk that is frozen, batch norm too, and follows a teacher that nothing trains."""

import torch
from torch import nn

from hpc.evaluation.values import Values
from hpc.task import Group, Phase, Task


def trunk(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


class Adapting(Task):
    metric = ("number/mae", "min")
    evaluators = {"number": lambda: Values("identity", output="number")}  # noqa: RUF012

    def players(self):
        width = self.config.task["width"]
        head = nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        return {"net": nn.Sequential(trunk(width), nn.Flatten(), head)}

    def groups(self, player):
        return {"0.*": Group(frozen=True), "2.2.*": Group(lr=10.0, decay=0.0)}

    def frozen(self):
        torch.manual_seed(self.config.task["teacher"])
        return {"teacher": nn.Sequential(trunk(2), nn.Flatten(), nn.Linear(2, 1))}

    def phases(self, clock):
        return [Phase("follow", "net")]

    def loss(self, phase, nets, batch, clock):
        target = nets["teacher"](batch.images["image"]) + batch.labels["identity"][:, None]
        return (nets["net"](batch.images["image"]) - target).square().mean()

    def predict(self, nets, batch):
        return {"number": nets["net"](batch.images["image"])[:, 0]}


def build(config):
    return Adapting(config)
