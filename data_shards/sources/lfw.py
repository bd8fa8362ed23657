"""LFW, Labeled Faces in the Wild: <Name>/<Name>_0001.jpg, 250 x 250 (Huang et al., UMass 07-49, 2007).

Keys keep the official names, so the pair lists (`pairs.txt`) find their pictures in the shards.
"""

import os

from data_shards.source import FileSource, folders_of

OPTIONS: dict[str, object] = {}
FOLDERS = ("lfw-deepfunneled", "lfw_funneled", "lfw-funneled", "lfw")  # as the archives unpack


class Lfw(FileSource):
    name = "lfw"
    licence = "research only; the photographs belong to their owners (vis-www.cs.umass.edu/lfw)"


def source(src: str, *, split: str) -> Lfw:
    """src: the folder of the people, or one that holds an unpacked archive."""
    del split  # people lists, not folders, divide LFW; hold out identities with holdout=
    root = src
    while inner := [name for name in FOLDERS if name in folders_of(root)]:
        root = os.path.join(root, inner[0])
    return Lfw(root)
