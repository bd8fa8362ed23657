"""YOLOv5: where objects are in an image, and of which class; boxes in pixels.

The network is `models/yolov5.py`, its losses `hpc/losses/detection.py`, its figures
`hpc/evaluation/detections.py` and `wider.py`. The published recipe sums losses over the images of a batch:
the loss is the mean times the batch, so that its learning rates hold.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards import counter_rng
from data_shards.batch import IMAGE
from data_shards.ops.affine import Affine
from data_shards.ops.base import Op, upload
from data_shards.ops.hsv import Hsv
from data_shards.ops.mixup import Mixup
from data_shards.ops.mosaic import Mosaic
from data_shards.ops.resize import Resize
from data_shards.ragged import Ragged
from hpc.evaluation.detections import Detections
from hpc.evaluation.wider import Wider
from hpc.inference.drawn_boxes import class_names, rendered
from hpc.losses import anchors
from hpc.losses.assignment import Targets
from hpc.losses.detection import Gains, detection_loss
from hpc.metrics.nms import suppressed
from hpc.task import Batch, Phase, Rendered, Task
from hpc.tasks.yolov5_plan import STRIDE
from models.yolo_maps import decode
from models.yolov5 import YOLOv5

MIXUP_ALPHA = 32.0  # of the Beta distribution, as published: nearly halves
SHOWN = 8  # images of the monitor's picture


class Yolov5(Task):
    """Finds the objects of `task.classes`. COCO's AP on the held-out set names the best checkpoint."""

    whole_image = True
    metric = ("boxes/ap", "max")
    later = {"wider": Wider}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        keys = config.task
        self.names = list(keys["classes"])
        self.evaluators = {"boxes": partial(Detections, most=keys["most"])}
        self.stride = STRIDE[keys["p6"]]
        self.gains = Gains(keys["box"], keys["objectness"], keys["class"], keys["smoothing"], keys["ratio"])
        self.fitted: anchors.Fitted | None = None
        self.best: float | None = None  # AP of the best evaluation so far
        self.best_clock = self.judged_clock = 0  # of that evaluation, and of the latest one
        self._net: YOLOv5 | None = None  # the player, which an engine may hide

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        self._net = YOLOv5(keys["model"], classes=len(self.names), p6=keys["p6"])
        return {"net": self._net}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("detect", "net")]

    def begin(self, sets: Mapping[str, Any]) -> None:
        """Fit the anchors to the training set: a buffer of the network, and so in its checkpoints."""
        if self.config.task["anchors"] != "auto" or "train" not in sets or self._net is None:
            return
        sides = anchors.sides_of(sets["train"], self.config.data.size)
        given = self._net.anchors
        self.fitted = anchors.fit(sides, given.cpu().numpy(), ratio=self.gains.ratio)
        given.copy_(torch.from_numpy(self.fitted.anchors))

    def ops(self, clock: int) -> list[Op]:
        keys, augment = self.config.task, self.config.task["augment"]
        listed: list[Op] = []
        if augment["mosaic"]:
            listed.append(
                Mosaic(
                    scale=tuple(augment["mosaic_scale"]),
                    junction=(0.1, 0.9),
                    share=augment["mosaic"],
                    unit=keys["unit"],
                    own=augment["mosaic_own"],
                )
            )
        moves = {name: augment[name] for name in ("degrees", "shear", "shift")}
        if any(moves.values()) or augment["scale"] != [1.0, 1.0]:
            listed.append(Affine(scale=tuple(augment["scale"]), **moves))
        if augment["mixup"]:
            listed.append(Mixup(alpha=MIXUP_ALPHA, share=augment["mixup"], unit=keys["unit"]))
        colours = {name: augment[name] for name in ("hue", "saturation", "value")}
        if any(colours.values()):
            listed.append(Hsv(**colours))
        if keys["scales"]:
            listed.append(Resize((self.side_at(clock),) * 2))
        return listed

    def side_at(self, clock: int) -> int:
        """Return the side of the images of the update that starts at `clock`: the same on all ranks."""
        size, scales = self.config.data.size, self.config.task["scales"]
        stream = counter_rng.key(self.config.seed, "scales")
        drawn = float(counter_rng.uniform(stream, np.array([clock]), 1)[0, 0])
        side = size * (1 - scales + 2 * scales * drawn)
        return max(self.stride, round(side / self.stride) * self.stride)

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        assert self._net is not None
        maps, net = nets["net"](batch.images[IMAGE]), self._net
        gains = self.gains.scaled(
            scales=len(net.strides), classes=len(self.names), side=self.config.data.size
        )
        found = detection_loss(
            maps,
            self.targets(batch),
            net.anchors,
            net.strides,
            classes=len(self.names),
            gains=gains,
            unit=self.config.task["unit"],
        )
        for name, value in found._asdict().items():
            if name != "classes" or len(self.names) > 1:
                self.report(name, value.detach())
        return found.total * self.stage(clock).batch

    def targets(self, batch: Batch) -> Targets:
        """Return what the batch's labels ask for. Ignored boxes carry the first flag of the set."""
        boxes, classes, flags = (batch.labels[name] for name in ("boxes", "box_class", "box_flags"))
        owners = upload(boxes.owners, boxes.rows.device, torch.int64)
        return Targets(boxes.rows, classes.rows, flags.rows[:, 0] == 1, owners)

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Any]:
        """Return {"detections": Ragged rows x0, y0, x1, y1 in pixels of the file, score, class}."""
        found = self.graph(nets, batch)
        keys = self.config.task
        candidates = _candidates(found["boxes"], found["scores"], keys["score"])
        kept = suppressed(
            candidates, threshold=keys["overlap"], agnostic=keys["agnostic"], limit=keys["limit"]
        )
        return {"detections": _in_files(kept, batch)}

    def graph(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return all candidates: boxes [n, k, 4] in pixels of the image, scores [n, k, classes]."""
        net = nets["net"]
        found = decode(net(batch.images[IMAGE]), net.anchors, net.strides, classes=len(self.names))  # type: ignore[arg-type]
        return {"boxes": found.boxes, "scores": found.objectness[..., None] * found.classes}

    def judged(self, scalars: Mapping[str, float], clock: int) -> None:
        """Remember when the average precision was best."""
        value = scalars.get(self.metric[0], math.nan)
        self.judged_clock = clock
        if not math.isnan(value) and (self.best is None or value > self.best):
            self.best, self.best_clock = value, clock

    def ended(self) -> bool:
        """Return whether evaluations have found nothing better for `task.patience` images."""
        patience = self.config.task["patience"]
        return patience > 0 and self.best is not None and self.judged_clock - self.best_clock >= patience

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_clock": self.best_clock, "judged_clock": self.judged_clock}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self.best_clock = state["best"], state["best_clock"]
        self.judged_clock = state["judged_clock"]

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return the record, the image with boxes drawn, and the label file in YOLO's text."""
        return rendered(image, prediction["detections"], class_names(self.known_fields) or self.names)

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        """Return the images of the batch as the network sees them, with the boxes that it learns."""
        shown = batch.images[IMAGE][:SHOWN].float().clone()
        for number, image in enumerate(shown):
            for x0, y0, x1, y1 in batch.labels["boxes"].of(number).round().long().tolist():
                if x1 > x0 and y1 > y0:
                    image[:, y0:y1, [x0, x1 - 1]] = 1.0
                    image[:, [y0, y1 - 1], x0:x1] = 1.0
        return {"learnt": shown}


def _candidates(boxes: Tensor, scores: Tensor, least: float) -> Ragged:
    """Return the candidates of some score, of their likeliest class: x0, y0, x1, y1, score, class."""
    best, kind = scores.max(2)
    owner, place = (best >= least).nonzero(as_tuple=True)
    rows = torch.cat(
        [boxes[owner, place], best[owner, place, None], kind[owner, place, None].to(boxes.dtype)], 1
    )
    counts = torch.bincount(owner, minlength=len(boxes)).cpu().numpy()
    return Ragged(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _in_files(found: Ragged, batch: Batch) -> Ragged:
    """Return detections of images with their boxes in pixels of the files, clipped to these."""
    rows, owners = found.rows.float().cpu(), found.owners
    if batch.placed is None:
        height, width = batch.size
        sides = np.broadcast_to([width, height], (len(rows), 2))
        boxes = rows[:, :4].double().numpy()
    else:
        sides = batch.placed.source[owners]
        boxes = batch.placed.undo_boxes(rows[:, :4].numpy(), owners)
    clipped = np.clip(boxes, 0, np.tile(sides, 2))
    seen = (clipped[:, 2:] > clipped[:, :2]).all(1)  # the others are in the padding
    there = torch.cat([torch.from_numpy(clipped).float(), rows[:, 4:]], 1)[torch.from_numpy(seen)]
    counts = np.bincount(owners[seen], minlength=len(found))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Ragged(there.to(found.rows.device), starts)


def build(config: Any) -> Yolov5:
    """Build the task; `hpc.task.build_task` calls it."""
    return Yolov5(config)
