"""A from B: one network colours images of A like those of B that share their slot, by a rival's judgement."""

import torch
from torch import nn

from hpc.task import Phase, Task


class Pairs(Task):
    def players(self):
        return {"G": nn.Conv2d(3, 3, 3, padding=1), "D": nn.Conv2d(3, 1, 3)}

    def phases(self, clock):
        return [Phase("make", "G"), Phase("judge", "D")]

    def loss(self, phase, nets, batch, clock):
        a, b = batch.images["a"], batch.images["b"]
        assert batch.labels["a.breed"].eq(0).all()
        assert batch.labels["b.breed"].eq(1).all()
        fake = nets["G"](a)
        if phase.name == "make":
            weight = batch.labels["a.age"][:, None, None, None] / 10
            return -(nets["D"](fake)).mean() + (weight * (fake - a).abs()).mean()
        return torch.relu(1 - nets["D"](b)).mean() + torch.relu(1 + nets["D"](fake.detach())).mean()


def build(config):
    return Pairs(config)
