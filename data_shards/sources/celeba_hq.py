"""CelebA-HQ (Karras et al., ICLR 2018): 30,000 faces of 1024 x 1024 pixels, in one of the layouts around.

    SRC/CelebA-HQ-img/0.jpg                        CelebAMask-HQ (Lee et al., CVPR 2020), numbered 0 to 29999
    SRC/CelebAMask-HQ-mask-anno/0/00000_hair.png   its masks, one for each part of a face; or
    SRC/mask_label_512/0.png                       one of numbers, where somebody has joined them already
    SRC/[train|val]/{female,male}/048197.jpg       folders by gender
    SRC/**/<number>.jpg                            any other folders of numbered pictures

Parts are numbered as by their authors: 0 background, 1 skin, to 18 cloth. Nobody is known by name.
"""

import os
import re
from collections.abc import Iterator, Mapping

import numpy as np

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from data_shards.sources.base import FileSource, Sample, folders_of, read_file, stem
from data_shards.sources.class_folders import PARTS
from data_shards.sources.walk import Walk

OPTIONS: dict[str, object] = {
    "masks": "auto",  # auto (where they are there) | none
    "partition": "auto",  # auto (the folders of splits, where there are any) | none
}
IMAGES = "CelebA-HQ-img"
PIECES = "CelebAMask-HQ-mask-anno"
JOINED = re.compile(r"mask_?label.*|.*-mask|masks?", re.IGNORECASE)
NAMES = (
    "background",
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip"),
    *("l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)
GENDERS = ("man", "woman")
FOLDERS = {"male": 0, "men": 0, "man": 0, "female": 1, "women": 1, "woman": 1}
_EACH = 2000  # numbers of a folder of pieces
_NUMBER = re.compile(r"[0-9]{1,6}")


class CelebAHQ(FileSource):
    """Numbered faces, with the masks of their parts and their gender where the layout states them."""

    name = "celeba_hq"
    licence = "non-commercial research and education only; the photographs belong to their owners"
    cluster = False

    def __init__(self, root: str, images: str, *, masks: str, partition: bool) -> None:
        """images: the folder of the pictures below root. masks: that of their masks ("" = there are none)."""
        super().__init__(root)
        self.images, self.masks, self.partition = images, masks, partition
        self.gender = any(folder.lower() in FOLDERS for folder in _inner(os.path.join(root, images)))
        fields: dict[str, Field | str] = {}
        if self.gender:
            fields["gender"] = Field("class", "i4", names=GENDERS)
        if masks:
            fields["parts"] = Field("mask", "u1", names=NAMES)
        self.fields: Mapping[str, Field | str] = fields
        self.cls = "gender" if self.gender else None

    def samples(self) -> Iterator[Sample]:
        first: dict[int, str] = {}
        for path, num_bytes, unfit in Walk(self.root).below(self.images):
            name = stem(os.path.basename(path))
            folders = os.path.dirname(path).lower().split("/")
            number = int(name) if _NUMBER.fullmatch(name) else -1
            labels = self._labels(folders)
            if not unfit:
                if number < 0:
                    unfit = "its name is not a number"
                elif number in first:
                    unfit = f"has the number of {first[number]}"
                elif labels is None:
                    unfit = f"is in no folder of a gender, {', '.join(FOLDERS)}"
                else:
                    first[number] = path
            part = next((PARTS[folder] for folder in folders if folder in PARTS), "")
            yield Sample(
                path, "", name, num_bytes, labels or (), unfit=unfit, split=part if self.partition else ""
            )
        if not first:
            raise UserError(
                f"src={self.root}: {self.images or 'it'} holds no picture with a number for a name; give the "
                f"folder that holds {IMAGES}, or folders of female and male"
            )

    def _labels(self, folders: list[str]) -> tuple[int, ...] | None:
        """The labels of a picture; None where its gender is missing."""
        if not self.gender:
            return ()
        found = [FOLDERS[folder] for folder in folders if folder in FOLDERS]
        return (found[-1],) if found else None

    def read(self, sample: Sample) -> bytes | dict[str, bytes | np.ndarray]:  # type: ignore[override]
        """The picture, and its mask where it has one."""
        data = super().read(sample)
        if not self.masks:
            return data
        folder = os.path.join(self.root, self.masks)
        joined = os.path.basename(self.masks) != PIECES
        mask = _joined(folder, sample.stem) if joined else _of_pieces(folder, int(sample.stem))
        return {"image": data} if mask is None else {"image": data, "parts": mask}


def _joined(folder: str, name: str) -> bytes | None:
    """A mask of numbers, as it is (None = there is none)."""
    path = os.path.join(folder, f"{name}.png")
    return read_file(path) if os.path.exists(path) else None


def _of_pieces(folder: str, number: int) -> np.ndarray | None:
    """The mask of one picture from those of its parts, of which the later ones lie above (None = none).

    uint8 [h, w], the number of a part. Raises OSError for parts of unequal size.
    """
    import cv2  # late, as in `images/normalize.py`

    mask: np.ndarray | None = None
    for part, name in enumerate(NAMES[1:], start=1):
        path = os.path.join(folder, str(number // _EACH), f"{number:05d}_{name}.png")
        if not os.path.exists(path):
            continue
        piece = cv2.imdecode(np.frombuffer(read_file(path), np.uint8), cv2.IMREAD_GRAYSCALE)
        if piece is None:
            raise OSError(f"the mask {number:05d}_{name}.png does not decode")
        if mask is None:
            mask = np.zeros(piece.shape, np.uint8)
        if piece.shape != mask.shape:
            raise OSError(f"the mask {number:05d}_{name}.png has another size than the others")
        mask[piece > 127] = part
    return mask


def source(src: str, *, split: str, masks: str = "auto", partition: str = "auto") -> CelebAHQ:
    """Open src, of any of the layouts. Raises UserError for another one."""
    del split  # all parts are packed, each into its own set
    if masks not in ("auto", "none"):
        raise UserError(f"masks={masks}: type auto or none")
    if partition not in ("auto", "none"):
        raise UserError(f"partition={partition}: type auto or none")
    names = folders_of(src)
    if IMAGES in names:
        pieces = [name for name in names if name == PIECES] or [
            name for name in names if JOINED.fullmatch(name)
        ]
        found = pieces[0] if pieces and masks == "auto" else ""
        return CelebAHQ(src, IMAGES, masks=found, partition=False)
    deeper = [name for name in names if os.path.isdir(os.path.join(src, name, IMAGES))]
    if deeper:
        raise UserError(f"src={src}: holds {deeper[0]}/{IMAGES}: type src={os.path.join(src, deeper[0])}")
    return CelebAHQ(src, "", masks="", partition=partition == "auto")


def _inner(folder: str) -> list[str]:
    """The names of all folders below a folder, two levels deep."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            found += [entry.name, *(inner.name for inner in os.scandir(entry.path) if inner.is_dir())]
    return found
