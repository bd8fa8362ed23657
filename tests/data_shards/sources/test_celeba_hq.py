"""CelebA-HQ: its layouts, masks of numbers and of parts, and what does not fit."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.images.masks import read_mask
from data_shards.shard_format.schema import Field
from data_shards.sources.celeba_hq import NAMES
from data_shards.sources.registry import open_source
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo


def put(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(photo(number, 32, 32)))


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


@pytest.fixture
def by_gender(tmp_path):
    root = tmp_path / "src"
    for number in range(6):
        put(
            root / ("val" if number == 5 else "train") / ("female", "male")[number % 2] / f"{number:06d}.jpg",
            number,
        )
    return root


def test_folders_by_gender_and_split(by_gender, tmp_path):
    put(by_gender / "train" / "female" / "face.jpg", 7)
    put(by_gender / "train" / "male" / "000000.jpg", 8)
    put(by_gender / "train" / "000009.jpg", 9)
    assert pack_source("celeba_hq", by_gender, tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 5, "val": 1}
    for shards in sets.values():
        assert shards.schema.fields["gender"] == Field("class", "i4", names=("man", "woman"))
        assert (shards.labels["identity"] == -1).all()
        for row in range(len(shards)):
            number = int(shards.key(row).rpartition("/")[2].removesuffix(".jpg"))
            assert shards.labels["gender"][row] == 1 - number % 2
    reasons = rejected(tmp_path / "out")
    assert reasons["train/female/face.jpg"] == "its name is not a number"
    assert reasons["train/male/000000.jpg"] == "has the number of train/female/000000.jpg"
    assert reasons["train/000009.jpg"].startswith("is in no folder of a gender")
    assert pack_source("celeba_hq", by_gender, tmp_path / "one", "partition=none") == 0
    assert {part: len(shards) for part, shards in packed_sets(tmp_path / "one").items()} == {"train": 6}


def test_masks_of_parts_are_joined_with_later_ones_above(tmp_path):
    root = tmp_path / "src"
    skin, nose = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    skin[2:14, 2:14], nose[6:9, 6:9] = 255, 255
    for number in (0, 2001, 3):
        put(root / "CelebA-HQ-img" / f"{number}.jpg", number)
    for number in (0, 2001):
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        write_mask(folder / f"{number:05d}_skin.png", skin)
        write_mask(folder / f"{number:05d}_nose.png", nose)
    assert pack_source("celeba_hq", root, tmp_path / "out") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert shards.schema.fields["parts"] == Field("mask", "u1", names=NAMES)
    wanted = np.where(nose[..., 0] > 0, 2, skin[..., 0] // 255)
    source = open_source("celeba_hq", str(root))
    masks = {sample.stem: source.read(sample) for sample in source.samples()}
    for name in ("0", "2001"):
        np.testing.assert_array_equal(masks[name]["parts"], wanted)
    assert set(masks["3"] if isinstance(masks["3"], dict) else {"image"}) == {"image"}
    assert pack_source("celeba_hq", root, tmp_path / "bare", "masks=none") == 0
    assert not packed_sets(tmp_path / "bare")["train"].schema.pieces


def test_a_damaged_part_rejects_its_picture_alone(tmp_path):
    root = tmp_path / "src"
    for number in (0, 1, 2):
        put(root / "CelebA-HQ-img" / f"{number}.jpg", number)
    folder = root / "CelebAMask-HQ-mask-anno" / "0"
    write_mask(folder / "00000_skin.png", np.full((8, 8), 255, np.uint8))
    write_mask(folder / "00000_hair.png", np.full((9, 9), 255, np.uint8))
    (folder / "00001_skin.png").write_bytes(b"nothing")
    assert pack_source("celeba_hq", root, tmp_path / "out") == 0
    reasons = rejected(tmp_path / "out")
    assert "00000_hair.png has another size" in reasons["CelebA-HQ-img/0.jpg"]
    assert "00001_skin.png does not decode" in reasons["CelebA-HQ-img/1.jpg"]
    assert len(packed_sets(tmp_path / "out")["train"]) == 1


def test_other_folders_are_refused_with_what_to_type(tmp_path):
    put(tmp_path / "up" / "CelebAMask-HQ" / "CelebA-HQ-img" / "0.jpg")
    with pytest.raises(UserError, match=r"type src=.*up/CelebAMask-HQ"):
        open_source("celeba_hq", str(tmp_path / "up"))
    put(tmp_path / "people" / "ann" / "face.jpg")
    with pytest.raises(UserError, match="holds no picture with a number for a name"):
        list(open_source("celeba_hq", str(tmp_path / "people")).samples())
    with pytest.raises(UserError, match="masks=x: type auto or none"):
        open_source("celeba_hq", str(tmp_path / "up"), options={"masks": "x"})
    with pytest.raises(UserError, match="partition=x: type auto or none"):
        open_source("celeba_hq", str(tmp_path / "up"), options={"partition": "x"})


@needs_real
def test_the_published_layouts(tmp_path):
    assert pack_source("celeba_hq", REAL / "celeba_hq" / "celeba_hq", tmp_path / "hq", "size=64") == 0
    shards = packed_sets(tmp_path / "hq")["train"]
    assert (len(shards), np.bincount(shards.labels["gender"]).tolist()) == (12, [6, 6])
    assert pack_source("celeba_hq", REAL / "celeba_hq" / "CelebAMask-HQ", tmp_path / "masks") == 0
    shards = packed_sets(tmp_path / "masks")["train"]
    assert len(shards) == 4
    source = open_source("celeba_hq", str(REAL / "celeba_hq" / "CelebAMask-HQ"))
    for sample in source.samples():
        mask = read_mask(source.read(sample)["parts"])
        assert {0, 1, 2, 13} <= set(np.unique(mask).tolist()) <= set(range(len(NAMES)))
        # skin is in the middle of an aligned face, above the neck
        assert mask[200:300, 200:300].max() <= 12
