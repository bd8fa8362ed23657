"""LFW, Labeled Faces in the Wild: <Name>/<Name>_0001.jpg, 250 x 250 (Huang et al., UMass 07-49, 2007).

Keys keep the official names, so the pair lists (`pairs.txt`) find their images in the shards.

The face takes about the middle 150 of 250 pixels. Whole images also show shoulders and background, which a
network would learn along with the person, and which the faces in later use do not have. So the centre is cut.
"""

import os

from data_shards.errors import UserError
from data_shards.sources.base import FileSource, Sample, folders_of

CROP = 150.0
OPTIONS: dict[str, object] = {"crop": CROP}
HELP = {"crop": "side of the centre square: pixels, or up to 1 a share of the side; 1 is the whole image"}
FOLDERS = ("lfw-deepfunneled", "lfw_funneled", "lfw-funneled", "lfw")  # as the archives unpack


class Lfw(FileSource):
    """The images of LFW, cut to the face."""

    name = "lfw"
    licence = "research only; the photographs belong to their owners (vis-www.cs.umass.edu/lfw)"

    def __init__(self, root: str, crop: float = CROP) -> None:
        super().__init__(root)
        self.crop = crop

    def sample(self, identity: str, path: str, num_bytes: int) -> Sample:
        return super().sample(identity, path, num_bytes)._replace(crop=self.crop)


def source(src: str, *, split: str, crop: float = CROP) -> Lfw:
    """Open src, the folder of the people or one that contains an unpacked archive. Raises UserError."""
    del split  # LFW is divided by lists of people, not folders; hold out identities with holdout=
    if not 0 < crop <= 10_000:
        raise UserError(
            f"crop={crop:g}: type the side of the centre square in pixels, e.g. 150, or a share up to 1"
        )
    root = src
    while inner := [name for name in FOLDERS if name in folders_of(root)]:
        root = os.path.join(root, inner[0])
    return Lfw(root, crop)
