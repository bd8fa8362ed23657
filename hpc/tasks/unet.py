"""A U-Net: a class for each pixel of an image, such as background and person.

The picture and its mask are cut, scaled and flipped alike by the view, and turned and sheared alike by an op;
colour changes the picture only. Networks: `models/unet.py`. Losses: `hpc/losses/segmentation.py`. Figures:
`hpc/evaluation/segmented.py`. What `rostro predict` writes: `hpc/inference/segment.py`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE
from data_shards.images.masks import UNKNOWN
from data_shards.ops.affine import Affine
from data_shards.ops.base import Op
from hpc.evaluation.segmented import Segmented
from hpc.losses import segmentation as losses
from hpc.plots.masks import colours, overlay
from hpc.task import Batch, Phase, Rendered, Task
from hpc.tasks.unet_plan import widths
from models.unet import UNet

SHOWN = 8  # rows of the monitor's picture


class Segmentation(Task):
    """One network, `net`. The overlap with the held-out masks names the best checkpoint."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.field: str = config.task["field"]
        self.classes: tuple[str, ...] = tuple(config.task["classes"])
        self.metric = (f"{self.field}/iou", "max")
        self.evaluators = {self.field: lambda: Segmented(self.field, names=self.classes)}
        self.by_pixel = self.field

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        net = UNet(
            len(self.classes),
            widths=widths(keys),
            bilinear=keys["upsample"] == "bilinear",
            norm=keys["norm"],
        )
        return {"net": net}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("segment", "net")]

    def ops(self, clock: int) -> list[Op]:
        augment = self.config.task["augment"]
        low, high = augment["scale"]
        if not augment["share"]:
            return []
        return [
            Affine(
                degrees=augment["degrees"],
                scale=(low, high),
                shear=augment["shear"],
                share=augment["share"],
            )
        ]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        keys, mask = self.config.task, batch.images[self.field][:, 0]
        logits = nets["net"](batch.images[IMAGE]).float()
        weights = None
        if keys["boundary"]:
            weights = losses.boundary_weights(mask, extra=keys["boundary"], reach=keys["reach"])
        entropy = losses.cross_entropy(logits, mask, weights).mean()
        overlap = losses.dice(logits, mask).mean()
        self.report("cross_entropy", entropy.detach())
        self.report("dice", overlap.detach())
        return entropy + keys["dice"] * overlap

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return the probabilities of the classes of each pixel, [n, k, h, w], by the name of the mask."""
        logits = nets["net"](batch.images[IMAGE]).float()
        return {self.field: logits.softmax(1)}

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return the mask over its image, and the share that each class covers.

        The prediction is the mask uint8 [h, w] of the image, or probabilities [k, h, w] of its size.
        """
        found = prediction[self.field]
        mask = (found.argmax(0) if found.ndim == 3 else found).astype(np.uint8)
        return Rendered(super().render(image, {self.field: mask}).record, overlay(image, mask))

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        """Return rows of the picture, its mask and the predicted mask; unknown pixels are white."""
        image, mask = batch.images[IMAGE][:SHOWN], batch.images[self.field][:SHOWN, 0].long()
        found = nets["net"](image).float().argmax(1)
        palette = torch.from_numpy(colours(len(self.classes))).to(image.device).float() / 127.5 - 1
        table = torch.cat([palette, palette.new_ones(UNKNOWN + 1 - len(palette), 3)])
        drawn = [table[each].permute(0, 3, 1, 2) for each in (mask, found)]
        return {"picture_truth_prediction": torch.cat([image, *drawn], 3)}


def build(config: Any) -> Segmentation:
    """Build the task; `hpc.task.build_task` calls it."""
    return Segmentation(config)
