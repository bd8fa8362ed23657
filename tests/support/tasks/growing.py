"""Images from latents by two rivals with batch norm, R1 every second update, and growth over three levels."""

import torch
import torch.nn.functional as F
from torch import nn

from hpc.task import Phase, Task
from tests.support.judgements import MeanOutput


class Maker(nn.Module):
    """Latents [n, 6] -> images of 8, 16 or 32 pixels; built whole, its levels come in one after the other."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4 * 8 * 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(3)
        )
        self.colours = nn.ModuleList(nn.Conv2d(4, 3, 1) for _ in range(3))

    def forward(self, z, level, fade):
        x = self.blocks[0](self.first(z).view(-1, 4, 8, 8))
        image = self.colours[0](x)
        for number in range(1, level + 1):
            x = self.blocks[number](F.interpolate(x, scale_factor=2))
            part = fade if number == level else 1.0
            image = torch.lerp(F.interpolate(image, scale_factor=2), self.colours[number](x), part)
        return image


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Softplus(), nn.Conv2d(6, 1, 3))

    def forward(self, x):
        return self.net(x).mean((1, 2, 3))


class Growing(Task):
    metric = ("judgement/mean", "max")
    evaluators = {"judgement": lambda: MeanOutput("judgement")}  # noqa: RUF012

    def players(self):
        return {"G": Maker(), "D": Judge()}

    def phases(self, clock):
        return [Phase("make", "G"), Phase("judge", "D"), Phase("r1", "D", every=2, second_order=True)]

    def loss(self, phase, nets, batch, clock):
        real, judge = batch.images["image"], nets["D"]
        if phase.name == "r1":
            real = real.detach().requires_grad_()
            (slope,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
            return 2 * slope.square().sum((1, 2, 3)).mean()
        z = batch.latents(phase.name, 6)
        made = nets["G"](z, self.stage(clock).level, self.fade(clock))
        assert made.shape == real.shape
        if phase.name == "make":
            return F.softplus(-judge(made)).mean()
        return F.softplus(judge(made.detach())).mean() + F.softplus(-judge(real)).mean()

    def predict(self, nets, batch):
        return {"judgement": nets["D"](batch.images["image"])}


def build(config):
    return Growing(config)
