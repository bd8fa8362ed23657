"""A from B: one network colours images of A like those of B that share their slot, by a rival's judgement."""

import torch
from torch import nn

from hpc.task import Phase, Rendered, Task
from tests.support.judgements import MeanOutput


class Pairs(Task):
    evaluators = {"fake": lambda: MeanOutput("fake")}  # noqa: RUF012

    def players(self):
        return {"G": nn.Conv2d(3, 3, 3, padding=1), "D": nn.Conv2d(3, 1, 3)}

    def phases(self, clock):
        return [Phase("make", "G"), Phase("judge", "D")]

    def loss(self, phase, nets, batch, clock):
        a, b = batch.images["a"], batch.images["b"]
        for side, breed in (("a", 0), ("b", 1)):  # without a read of the host
            torch._assert_async(batch.labels[f"{side}.breed"].eq(breed).all())
        fake = nets["G"](a)
        if phase.name == "make":
            weight = batch.labels["a.age"][:, None, None, None] / 10
            return -(nets["D"](fake)).mean() + (weight * (fake - a).abs()).mean()
        return torch.relu(1 - nets["D"](b)).mean() + torch.relu(1 + nets["D"](fake.detach())).mean()

    def predict(self, nets, batch):
        return {"fake": nets["G"](batch.images["image"])}

    def render(self, image, prediction):
        fake = ((prediction["fake"].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype("uint8")
        return Rendered({"mean": float(prediction["fake"].mean())}, image=fake)


def build(config):
    return Pairs(config)
