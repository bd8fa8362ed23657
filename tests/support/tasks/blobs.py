"""Boxes around what is painted in a bright yellow: a detector that is right without training."""

import cv2
import numpy as np
import torch
from torch import nn

from data_shards.batch import pixels_of
from data_shards.ragged import Ragged
from hpc.evaluation.detections import Detections
from hpc.evaluation.wider import Wider
from hpc.inference.drawn_boxes import class_names, rendered
from hpc.task import Phase, Task


class Blobs(Task):
    whole_image = True
    metric = ("objects/ap50", "max")
    evaluators = {"objects": Detections}  # noqa: RUF012
    later = {"wider": Wider}  # noqa: RUF012

    def players(self):
        return {"net": nn.Conv2d(3, 1, 1)}

    def phases(self, clock):
        return [Phase("fit", "net")]

    def loss(self, phase, nets, batch, clock):
        return nets["net"](batch.images["image"]).square().mean()

    def predict(self, nets, batch):
        """Boxes in pixels of the file; the score is the share of the box that is yellow."""
        lists = []
        for image in pixels_of(batch.images["image"]).astype(int):
            yellow = (image[..., 0] - image[..., 2] > 60).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(yellow, connectivity=4)
            x, y, width, height, area = stats[1:].T.astype(np.float64)
            score = area / np.maximum(width * height, 1)
            lists.append(np.stack([x, y, x + width, y + height, score, np.zeros(len(x))], 1))
        found = Ragged.of_lists([torch.from_numpy(each) for each in lists])
        rows = found.rows.numpy().copy()
        rows[:, :4] = batch.placed.undo_boxes(rows[:, :4], found.owners)
        limits = batch.placed.source[found.owners]
        rows[:, :4] = np.clip(rows[:, :4], 0, np.tile(limits, 2))
        return {"detections": Ragged(torch.from_numpy(rows.astype(np.float32)), found.starts)}

    def render(self, image, prediction):
        return rendered(image, prediction["detections"], class_names(self.known_fields))


def build(config):
    return Blobs(config)
