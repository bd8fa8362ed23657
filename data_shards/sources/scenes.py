"""Synthetic scenes of several people: `rostro pack source=scenes scenes=3000 side=256 holdout=0.1 out=DIR`.

The generator is `faces/scenes.py`. Each has the boxes of its faces with five landmarks, and a mask of its
persons. Scenes are numbered, so a larger set contains a smaller one. It reads no src.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import simplejpeg

from data_shards.errors import UserError
from data_shards.faces.scenes import MAX_SIZE, MIN_SIZE, MOST_FACES, Scene, draw_scene
from data_shards.shard_format.schema import Field
from data_shards.sources.base import Sample
from data_shards.sources.boxes import FIVE_POINTS, IGNORE, Boxes, box_fields

NEEDS_SRC = False
SIDE = 256
# seed is also a key of the packer; for this source it decides what the scenes are, too
OPTIONS: dict[str, object] = {"scenes": 2000, "faces": 5, "side": SIDE, "seed": 0}
HELP = {
    "scenes": "how many",
    "faces": "people of a scene, at most",
    "side": "the longer one of a scene, in pixels",
    "seed": "of the scenes, their order and their split",
}
FLAGS = (IGNORE, "occluded")
QUALITY = 92


class Scenes:
    """`count` scenes; the parent process draws them, and their files travel with the samples."""

    name = "scenes"
    licence = "drawn by a program, shows nobody; free of any claim"
    fields: Mapping[str, Field | str] = {
        **box_fields(("face",), FLAGS, FIVE_POINTS),
        "mask": Field("mask", "u1", names=("background", "person")),
    }
    cls = None
    cluster = False

    def __init__(self, *, count: int, most: int, side: int, seed: int) -> None:
        self.count, self.most, self.side, self.seed = count, most, side, seed

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            scene = self.scene(number)
            height, width = scene.person.shape
            boxes = Boxes((width, height), len(FLAGS), len(FIVE_POINTS))
            flags = np.stack([scene.is_ignored, scene.is_occluded], axis=1).astype(int).tolist()
            columns = (scene.boxes.tolist(), flags, scene.area.tolist(), scene.points.tolist())
            for box, bits, area, points in zip(*columns, strict=True):
                boxes.add(box, 0, bits, area, points)
            jpeg = simplejpeg.encode_jpeg(scene.image, QUALITY, "RGB", "420")
            packed = np.packbits(scene.person > 0).tobytes()
            extra = b"%d %d %d " % (width, height, len(jpeg)) + jpeg + packed
            yield Sample(f"scene{number:06d}", "", f"{number:06d}", len(jpeg), boxes.labels(), extra=extra)

    def scene(self, number: int) -> Scene:
        """Scene `number` of the set."""
        return draw_scene(number, seed=self.seed, size=self.side, most=self.most)

    def read(self, sample: Sample) -> dict[str, bytes | np.ndarray]:
        width, height, length, rest = sample.extra.split(b" ", 3)
        jpeg, packed = rest[: int(length)], rest[int(length) :]
        count = int(width) * int(height)
        mask = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).reshape(int(height), int(width))
        return {"image": jpeg, "mask": mask}


def source(src: str, *, split: str, scenes: int, faces: int, side: int, seed: int) -> Scenes:
    """Make the source; src must be empty. Raises UserError for a number out of range."""
    del split
    if src:
        raise UserError(f"src={src}: source=scenes reads no folder; leave src out")
    checks = {
        "scenes": (scenes, 1, 10**5),
        "faces": (faces, 1, MOST_FACES),
        "side": (side, MIN_SIZE, MAX_SIZE),
        "seed": (seed, 0, 2**63 - 1),
    }
    for key, (value, low, high) in checks.items():
        if not low <= value <= high:
            raise UserError(f"{key}={value} is out of range: type {low} to {high}")
    return Scenes(count=scenes, most=faces, side=side, seed=seed)
