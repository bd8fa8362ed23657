"""Where things are: a mask by pixel and the area of all boxes, on mosaics of four."""

import torch
import torch.nn.functional as F
from torch import nn

from data_shards.ops.mosaic import Mosaic as MosaicOp
from hpc.task import Phase, Rendered, Task
from tests.support.judgements import MeanOutput, PixelAccuracy


class Mosaic(Task):
    metric = ("parts/accuracy", "max")
    evaluators = {  # noqa: RUF012
        "parts": lambda: PixelAccuracy("parts"),
        "area": lambda: MeanOutput("area"),
    }

    def players(self):
        return {"net": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))}

    def phases(self, clock):
        return [Phase("fit", "net")]

    def ops(self, clock):
        return [MosaicOp(scale=(0.5, 1.0), share=0.8, unit=4, own=self.config.task["own"])]

    def loss(self, phase, nets, batch, clock):
        out, mask, boxes = (
            nets["net"](batch.images["image"]),
            batch.images["parts"][:, 0],
            batch.labels["boxes"],
        )
        assert len(boxes) == len(mask) == len(out)
        by_pixel = F.cross_entropy(out[:, :3], mask.long(), ignore_index=255, reduction="none").mean((1, 2))
        sides = (boxes.rows[:, 2:] - boxes.rows[:, :2]).prod(dim=1) / mask[0].numel()
        owners = torch.from_numpy(boxes.owners)
        area = torch.zeros(len(out)).index_add(0, owners, sides)
        return (by_pixel + (out[:, 3].mean((1, 2)) - area).square()).mean()

    def predict(self, nets, batch):
        out = nets["net"](batch.images["image"])
        return {"parts": out[:, :3], "area": out[:, 3].mean((1, 2))}

    def render(self, image, prediction):
        classes = prediction["parts"].argmax(0)
        shares = [float((classes == number).mean()) for number in range(3)]
        label = " ".join(f"{share:.3f}" for share in shares)
        return Rendered({"area": float(prediction["area"]), "parts": shares}, label=label)


def build(config):
    return Mosaic(config)
