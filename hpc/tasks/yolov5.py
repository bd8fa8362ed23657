"""YOLOv5: where objects are in an image, and of which class; boxes in pixels.

The network is `models/yolov5.py`, its losses `hpc/losses/detection.py`, its figures
`hpc/evaluation/detections.py` and `wider.py`. The published recipe sums losses over the images of a batch:
the loss is the mean times the batch, so that its learning rates hold. With `task.landmarks` it also learns
points of each object, of the set's label `box_points`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards import counter_rng
from data_shards.batch import IMAGE
from data_shards.loading.labels import mirror_of
from data_shards.ops.affine import Affine
from data_shards.ops.base import Op, upload
from data_shards.ops.hsv import Hsv
from data_shards.ops.mixup import Mixup
from data_shards.ops.mosaic import Mosaic
from data_shards.ops.resize import Resize
from data_shards.ragged import Ragged
from data_shards.shard_format.schema import Field
from hpc.evaluation.detections import Detections
from hpc.evaluation.wider import Wider
from hpc.inference.drawn_boxes import class_names, rendered
from hpc.losses import anchors
from hpc.losses.assignment import Targets
from hpc.losses.detection import Gains, detection_loss
from hpc.metrics.nms import suppressed
from hpc.task import Batch, Phase, Rendered, Task
from hpc.tasks.yolov5_plan import POINTS, STRIDE, landmarks
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
        self.landmarks = landmarks(keys)
        if self.landmarks:
            self.gains = replace(self.gains, landmarks=keys["landmark"])
        self.points: tuple[str, ...] = ()  # names of the landmarks, once the set has said them
        self.fitted: anchors.Fitted | None = None
        self.best: float | None = None  # AP of the best evaluation so far
        self.best_clock = self.judged_clock = 0  # of that evaluation, and of the latest one
        self._net: YOLOv5 | None = None  # the player, which an engine may hide

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        self._net = YOLOv5(keys["model"], classes=len(self.names), p6=keys["p6"], points=self.landmarks)
        return {"net": self._net}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("detect", "net")]

    def begin(self, sets: Mapping[str, Any]) -> None:
        """Learn the names of landmarks; fit the anchors to the training set.

        Anchors are a buffer of the network, and so in its checkpoints.
        """
        for shards in sets.values():
            if self.landmarks and not self.points and POINTS in shards.ragged:
                self.points = tuple(shards.schema.fields[POINTS].names)
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
            if value is not None and (name != "classes" or len(self.names) > 1):
                self.report(name, value.detach())
        return found.total * self.stage(clock).batch

    def targets(self, batch: Batch) -> Targets:
        """Return what the batch's labels ask for. Ignored boxes carry the first flag of the set."""
        boxes, classes, flags = (batch.labels[name] for name in ("boxes", "box_class", "box_flags"))
        owners = upload(boxes.owners, boxes.rows.device, torch.int64)
        points = batch.labels[POINTS].rows if self.landmarks else None
        return Targets(boxes.rows, classes.rows, flags.rows[:, 0] == 1, owners, points)

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Any]:
        """Return {"detections": Ragged rows x0, y0, x1, y1 in pixels of the file, score, class}.

        A run with landmarks also answers "landmarks": Ragged rows [landmarks, 2] of the same detections.
        """
        found = self.graph(nets, batch)
        keys = self.config.task
        candidates = _candidates(found["boxes"], found["scores"], keys["score"], found.get("landmarks"))
        kept = suppressed(
            candidates, threshold=keys["overlap"], agnostic=keys["agnostic"], limit=keys["limit"]
        )
        there = _in_files(kept, batch, self.mirror)
        answer = {"detections": Ragged(there.rows[:, :6], there.starts)}
        if self.landmarks:
            points = there.rows[:, 6:].unflatten(1, (self.landmarks, 2))
            answer["landmarks"] = Ragged(points, there.starts)
        return answer

    def graph(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return all candidates: boxes [n, k, 4] in pixels of the image, scores [n, k, classes].

        A run with landmarks also answers these, [n, k, landmarks, 2].
        """
        net = nets["net"]
        found = decode(net(batch.images[IMAGE]), net.anchors, net.strides, classes=len(self.names))  # type: ignore[arg-type]
        answer = {"boxes": found.boxes, "scores": found.objectness[..., None] * found.classes}
        return answer | ({"landmarks": found.points} if self.landmarks else {})

    @property
    def mirror(self) -> np.ndarray | None:
        """The landmark whose name each one takes in a mirror image, int64 [k] (None = its own)."""
        return mirror_of(Field("points", "f4", (len(self.points), 2), self.points))

    def postprocessing(self) -> dict[str, Any]:
        """Return what the outputs of `graph` are, and how detections are chosen among them."""
        said: dict[str, Any] = {
            "boxes": "n, candidates, 4: x0, y0, x1, y1 in pixels of the input",
            "scores": "n, candidates, classes: from 0 to 1",
            "class": "the one of the largest score of a candidate",
            **{name: self.config.task[name] for name in ("score", "overlap", "agnostic", "limit")},
            "chosen": "candidates of `score` or more; of those that overlap by more than `overlap` only "
            "the best is kept; unequal classes compete only where `agnostic`; at most `limit` of an image",
        }
        if self.landmarks:
            said["landmarks"] = "n, candidates, landmarks, 2: x, y in pixels of the input"
            said["names"] = list(self.points)
        return said

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
        found = {"best": self.best, "best_clock": self.best_clock, "judged_clock": self.judged_clock}
        return found | ({"landmarks": list(self.points)} if self.landmarks else {})

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self.best_clock = state["best"], state["best_clock"]
        self.judged_clock = state["judged_clock"]
        self.points = tuple(state.get("landmarks", ())) or self.points

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return the record, the image with boxes drawn, and the label file in YOLO's text."""
        names = class_names(self.known_fields) or self.names
        return rendered(image, prediction["detections"], names, prediction.get("landmarks"))

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        """Return the images of the batch as the network sees them, with what it learns drawn on them."""
        shown = batch.images[IMAGE][:SHOWN].float().clone()
        for number, image in enumerate(shown):
            for x0, y0, x1, y1 in batch.labels["boxes"].of(number).round().long().tolist():
                if x1 > x0 and y1 > y0:
                    image[:, y0:y1, [x0, x1 - 1]] = 1.0
                    image[:, [y0, y1 - 1], x0:x1] = 1.0
            points = batch.labels[POINTS].of(number).flatten(0, 1) if POINTS in batch.labels else ()
            for x, y in (point.long().tolist() for point in points if point.min() >= 0):
                image[:, y : y + 2, x : x + 2] = 1.0
        return {"learnt": shown}


def _candidates(boxes: Tensor, scores: Tensor, least: float, points: Tensor | None = None) -> Ragged:
    """Return the candidates of some score, of their likeliest class: x0, y0, x1, y1, score, class.

    x, y of each of the `points` [n, k, p, 2] follow.
    """
    best, kind = scores.max(2)
    owner, place = (best >= least).nonzero(as_tuple=True)
    parts = [boxes[owner, place], best[owner, place, None], kind[owner, place, None].to(boxes.dtype)]
    if points is not None:
        parts.append(points[owner, place].flatten(1))
    rows = torch.cat(parts, 1)
    counts = torch.bincount(owner, minlength=len(boxes)).cpu().numpy()
    return Ragged(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _in_files(found: Ragged, batch: Batch, mirror: np.ndarray | None = None) -> Ragged:
    """Return detections of images with their boxes in pixels of the files, clipped to these.

    Their landmarks may be beyond the file. mirror: as of `Placed.undo_points`
    """
    rows, owners = found.rows.float().cpu(), found.owners
    if batch.placed is None:
        height, width = batch.size
        sides = np.broadcast_to([width, height], (len(rows), 2))
        boxes = rows[:, :4].double().numpy()
    else:
        sides = batch.placed.source[owners]
        boxes = batch.placed.undo_boxes(rows[:, :4].numpy(), owners)
        points = rows[:, 6:].reshape(len(rows), (rows.shape[1] - 6) // 2, 2)
        moved = torch.from_numpy(batch.placed.undo_points(points.numpy(), owners, mirror=mirror))
        rows = torch.cat([rows[:, :6], moved.float().flatten(1)], 1)
    clipped = np.clip(boxes, 0, np.tile(sides, 2))
    seen = (clipped[:, 2:] > clipped[:, :2]).all(1)  # the others are in the padding
    there = torch.cat([torch.from_numpy(clipped).float(), rows[:, 4:]], 1)[torch.from_numpy(seen)]
    counts = np.bincount(owners[seen], minlength=len(found))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Ragged(there.to(found.rows.device), starts)


def build(config: Any) -> Yolov5:
    """Build the task; `hpc.task.build_task` calls it."""
    return Yolov5(config)
