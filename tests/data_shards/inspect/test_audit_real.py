"""The audit on genuine samples: what is known to be in them is found, copies of them too, and little else."""

from contextlib import contextmanager

import cv2
import numpy as np
import simplejpeg

from data_shards.inspect.audit import Limits, audit
from data_shards.inspect.check import find_sets
from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main
from tests.support.image_folders import REAL, needs_real

pytestmark = needs_real


@contextmanager
def silent(what: str):
    yield None


def audited(folder):
    return audit([ShardSet.open(each) for each in find_sets(folder)], Limits(), workers=1, bar=silent)


def altered(data: bytes, kind: int) -> bytes:
    """One of four copies that a photograph gets on its way: smaller, lighter, coarser, grey."""
    image = simplejpeg.decode_jpeg(data)
    if kind == 0:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    if kind == 1:
        image = np.clip(image * 1.1 + 10, 0, 255).astype(np.uint8)
    if kind == 3:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), 30 if kind == 2 else 80)


def test_copies_of_real_faces_are_found_and_faces_that_are_aligned_alike_are_not(tmp_path):
    """200 aligned faces of CelebA and 200 of UTKFace, and a copy of each tenth one."""
    photos = sorted((REAL / "celeba" / "Img" / "img_align_celeba_half_89x109").glob("*.jpg"))[:200]
    photos += sorted((REAL / "utkface").rglob("*.chip.jpg"))[:200]
    assert len(photos) > 300
    for part, names in (("train", photos), ("test", photos[::10])):
        for place, path in enumerate(names):
            data = path.read_bytes() if part == "train" else altered(path.read_bytes(), place % 4)
            folder = tmp_path / "src" / part / f"class{place % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{path.stem.partition('.')[0]}.jpg").write_bytes(data)
    words = ["source=classes", f"src={tmp_path / 'src'}", f"out={tmp_path / 'out'}", "workers=1", "name=real"]
    assert main(["pack", *words]) == 0
    result = audited(tmp_path / "out")

    def stem(number: int) -> str:
        shards, row = result.sets.place(number)
        return shards.member(row).rpartition("/")[2]

    across = {
        frozenset(map(stem, cluster.members))
        for cluster in result.clusters
        if result.sets.leak(cluster.members)
    }
    copied = {f"{path.stem.partition('.')[0]}.jpg" for path in photos[::10]}
    assert copied <= set().union(*across)
    strangers = [names for names in across if len(names) > 1]
    assert len(strangers) <= 2  # UTKFace holds some photographs twice
