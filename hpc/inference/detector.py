"""A detector as `rostro predict` uses it: images of any size in, boxes in their pixels out.

That of a run sees letterboxed images; its answer in pixels of the file is the task's own work
(`Placed.undo_boxes`). Test-time augmentation shows it each image several times: mirrored, and at other sizes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from data_shards.errors import UserError
from data_shards.ragged import Ragged
from data_shards.sampling.view import still
from hpc.data import views
from hpc.inference.drawn_boxes import class_names, rendered
from hpc.inference.loose import lay_image
from hpc.inference.predictor import Predictor
from hpc.metrics.nms import suppressed
from hpc.task import Rendered

SCORE = 0.25  # from which a detection counts where nothing was chosen on val
MERGE = 0.6  # intersection over union beyond which two looks at an image have found one object
STRIDE = 32  # pixels: sides of other sizes are multiples of it, unless the task states another `stride`
LOOKS = {  # tta= -> (factor of the size, mirrored)
    "none": ((1.0, False),),
    "flip": ((1.0, False), (1.0, True)),
    "scales": ((1.0, False), (0.75, False), (1.25, False)),
    "both": ((1.0, False), (1.0, True), (0.75, False), (1.25, False)),
}


class Detector(ABC):
    """What finds objects in images."""

    name = ""  # for messages
    names: Sequence[str] = ()  # of the classes
    score = SCORE  # from which a detection is drawn and listed
    notes: Sequence[str] = ()  # lines for the end

    @abstractmethod
    def find(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Find objects in images uint8 [h, w, 3] RGB of any sizes, by falling score.

        Returns of each float32 [k, 6 + 2 p]: x0, y0, x1, y1 in its pixels, clipped to it, score in [0, 1],
        class; then x, y of p landmarks, where it knows any.
        """

    def render(self, image: np.ndarray, found: np.ndarray) -> Rendered:
        """Return what is written of the detections `found` [k, 6 or more] of an image."""
        return rendered(image, found, self.names)


@dataclass
class RunDetector(Detector):
    """The detector of a run. tta: one of LOOKS."""

    model: Predictor
    tta: str = "none"

    def __post_init__(self) -> None:
        if self.tta not in LOOKS:
            raise UserError(f"tta={self.tta} is not known: use {', '.join(LOOKS)}")
        task = self.model.task
        self.name = self.model.name
        self.names = class_names(task.known_fields) or getattr(task, "names", ())
        chosen = [each["score"] for each in task.chosen.values() if "score" in each]
        self.score = float(chosen[0]) if chosen else SCORE

    def find(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        looks = LOOKS[self.tta]
        parts = [self._look(images, factor, mirrored) for factor, mirrored in looks]
        if len(looks) == 1:
            return parts[0]
        joined = [torch.from_numpy(np.concatenate(each)) for each in zip(*parts, strict=True)]
        keys = self.model.config.task
        more = {name: keys[name] for name in ("limit", "agnostic") if name in keys}
        merged = suppressed(Ragged.of_lists(joined), threshold=MERGE, **more)
        return [merged.of(row).numpy() for row in range(len(images))]

    def _look(self, images: Sequence[np.ndarray], factor: float, mirrored: bool) -> list[np.ndarray]:
        size = self.model.config.data.size
        stride = getattr(self.model.task, "stride", STRIDE)
        side = size if factor == 1 else max(stride, round(size * factor / stride) * stride)
        view = replace(views.evaluation(self.model.config, side), halves=False)
        widths, heights = (np.array([image.shape[axis] for image in images]) for axis in (1, 0))
        seen = np.empty((len(images), side, side, 3), np.uint8)
        for out, image in zip(seen, images, strict=True):
            lay_image(out, image[:, ::-1] if mirrored else image, view)
        answer = self.model.predict(seen, still(view, widths, heights).placed)
        found = [np.array(rows, np.float32).reshape(-1, 6) for rows in answer["detections"]]
        points = answer.get("landmarks", [np.zeros((len(rows), 0, 2), np.float32) for rows in found])
        if mirrored:
            for rows, width in zip(found, widths.tolist(), strict=True):
                rows[:, [0, 2]] = width - rows[:, [2, 0]]
            points = [self._mirrored(*each) for each in zip(points, widths.tolist(), strict=True)]
        return [
            np.concatenate([rows, marks.reshape(len(rows), 2 * marks.shape[1])], 1)
            for rows, marks in zip(found, points, strict=True)
        ]

    def _mirrored(self, points: np.ndarray, width: int) -> np.ndarray:
        """The landmarks [k, p, 2] of a mirror image `width` pixels wide, in the image itself."""
        turned = np.stack([width - points[..., 0], points[..., 1]], -1)
        mirror = getattr(self.model.task, "mirror", None)
        return turned if mirror is None else turned[:, mirror]

    def render(self, image: np.ndarray, found: np.ndarray) -> Rendered:
        prediction = {"detections": found[:, :6]}
        if count := (found.shape[1] - 6) // 2:
            prediction["landmarks"] = found[:, 6:].reshape(len(found), count, 2)
        return self.model.task.render(image, prediction)
