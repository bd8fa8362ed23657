"""The largest face of each loose picture, found by OpenCV, cut, grey, 48 x 48, as FER2013 stores faces.

    SRC/<class>/**/<picture>     or SRC/**/<picture> with label=CLASS

The detector is the cascade of Haar-like features that OpenCV carries (Viola and Jones, CVPR 2001; Lienhart
and Maydt, ICIP 2002), on a grey copy of at most 400 pixels whose histogram is equalised. It finds frontal,
upright faces; pictures in which it finds none are listed. `fer2013.py` adds such pictures to its classes.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache

import cv2
import numpy as np

from data_shards.errors import UserError
from data_shards.images.normalize import pixels
from data_shards.images.pixels import square
from data_shards.shard_format.keys import visible
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, netpbm, read_file, stem, walk

SIZE = 48  # pixels
OPTIONS: dict[str, object] = {
    "size": 0,
    "grey": True,
    "margin": 0.0,  # OpenCV's own box is what FER2013 shows
    "label": "",
}
HELP = {
    "size": f"side of the stored faces in pixels; 0 is {SIZE}",
    "grey": "store them in grey",
    "margin": "on each side of the face, as a share of its own",
    "label": "the class of all pictures (empty = their folder in SRC)",
}
CASCADE = "haarcascade_frontalface_alt2.xml"
DETECT_SIDE = 400  # pixels of the longer side of what the detector sees
SMALLEST = 8  # a face is at least this part of the shorter side


class FacesFrom(FileSource):
    """The largest face of each picture, with the label `class`."""

    licence = "not stated by the source: check the terms of the pictures before you share them"
    cls = "class"
    cluster = False

    def __init__(
        self, root: str, names: tuple[str, ...], *, label: str, size: int, grey: bool, margin: float
    ) -> None:
        """names: of the classes, which are folders of root unless `label` is the class of all pictures."""
        super().__init__(root)
        self.name = label or os.path.basename(os.path.abspath(root)) or "faces"
        self.names, self.label, self.size, self.grey, self.margin = names, label, size, grey, margin
        shown = tuple(map(visible, names))
        self.fields: Mapping[str, Field | str] = {"class": Field("class", "i4", names=shown, unknown=None)}

    def samples(self) -> Iterator[Sample]:
        for path, num_bytes, unfit in walk(self.root):
            name = self.label or path.partition("/")[0] * ("/" in path)
            if name not in self.names:
                unfit = unfit or "lies beside the class folders"
            labels = (self.names.index(name),) if name in self.names else ()
            weight = stored_bytes(num_bytes, self.size)
            yield Sample(path, "", stem(os.path.basename(path)), weight, labels, unfit=unfit)

    def read(self, sample: Sample) -> bytes:
        data = read_file(os.path.join(self.root, sample.path))
        return face_of(data, size=self.size, grey=self.grey, margin=self.margin)


def face_of(data: bytes, *, size: int = SIZE, grey: bool = True, margin: float = 0.0) -> bytes:
    """The largest face in an image file, as PGM or PPM of size x size.

    Raises Rejected for a file that is no image, OSError for one without a face.
    """
    image = pixels(data)
    box = largest_face(image)
    if box is None:
        raise OSError("shows no face that the detector finds")
    face = square(cut(image, box, margin=margin), size)
    return netpbm(in_grey(face) if grey else face)


def in_grey(image: np.ndarray) -> np.ndarray:
    """[h, w, 3] RGB or [h, w, 1] as [h, w, 1], by the weights of ITU-R BT.601."""
    return image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


def largest_face(image: np.ndarray) -> tuple[int, int, int] | None:
    """(x, y, side) in pixels of the largest face in uint8 [h, w, 1 or 3], None where there is none."""
    grey = np.ascontiguousarray(in_grey(image)[..., 0])
    scale = max(1.0, max(grey.shape) / DETECT_SIDE)
    if scale > 1:
        height, width = (max(1, round(side / scale)) for side in grey.shape)
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    least = max(20, min(grey.shape) // SMALLEST)
    found = _cascade().detectMultiScale(cv2.equalizeHist(grey), 1.1, 3, minSize=(least, least))
    if not len(found):
        return None
    x, y, side = max(((int(x), int(y), int(w)) for x, y, w, _ in found), key=lambda face: (face[2], face))
    return round(x * scale), round(y * scale), round(side * scale)


def cut(image: np.ndarray, box: tuple[int, int, int], *, margin: float = 0.0) -> np.ndarray:
    """The square of a face with a margin, moved and made smaller where the picture ends before it does."""
    height, width = image.shape[:2]
    x, y, side = box
    whole = max(1, min(round(side * (1 + 2 * margin)), height, width))
    left = min(max(0, round(x + (side - whole) / 2)), width - whole)
    top = min(max(0, round(y + (side - whole) / 2)), height - whole)
    return image[top : top + whole, left : left + whole]


@cache
def _cascade() -> cv2.CascadeClassifier:
    """The detector of this process."""
    path = os.path.join(os.path.dirname(cv2.__file__), "data", CASCADE)
    if not os.path.isfile(path):
        raise UserError(f"{path}: is missing; install opencv-python-headless below version 5")
    return cv2.CascadeClassifier(path)


def stored_bytes(num_bytes: int, size: int) -> int:
    """About the bytes of a face from a picture of num_bytes; equal for equal pictures, seldom for others.

    Shards are cut by it, and the packer looks for copies among files of one size (`pack/copies.py`).
    """
    return num_bytes and size * size // 2 + num_bytes % 997


def check_margin(margin: float) -> None:
    """Raise UserError for a margin that no picture can have."""
    if not 0 <= margin <= 2:
        raise UserError(f"margin={margin:g}: type a share of the face from 0 to 2, e.g. 0.2")


def source(
    src: str, *, split: str, size: int = 0, grey: bool = True, margin: float = 0.0, label: str = ""
) -> FacesFrom:
    """Open src, a folder of pictures or of class folders. Raises UserError."""
    del split
    check_margin(margin)
    if not label:
        try:
            names = tuple(folders_of(src))
        except UserError:
            raise UserError(
                f"src={src}: has no class folders; give the folder that has them, or type label=CLASS"
            ) from None
    elif not os.path.isdir(src):
        raise UserError(f"src={src}: is not a folder; give the folder that holds the pictures")
    else:
        names = (label,)
    return FacesFrom(src, names, label=label, size=size or SIZE, grey=grey, margin=margin)
