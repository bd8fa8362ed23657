"""Pictures and masks in two folders: sizes, values, names, and what does not fit."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data_shards.shard_format.schema import Field
from tests.support.detection_sets import mask_of, put_mask, put_picture
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import last_error, pack_source, packed_sets, rejected


def half(width: int = 64, height: int = 48, value: int = 255) -> np.ndarray:
    """A mask whose right half has a value."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = value
    return mask


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "src"
    for number in range(8):
        put_picture(folder / "Training_Images" / f"{number}.jpg", number)
        put_mask(folder / "Ground_Truth" / f"{number}.png", half())
    return folder


def test_masks_of_other_sizes_and_values_become_classes(root, tmp_path):
    put_mask(root / "Ground_Truth" / "1.png", half(31, 23))
    put_mask(root / "Ground_Truth" / "2.png", half(value=1))
    unknown = half(value=1)
    unknown[:4] = 255
    put_mask(root / "Ground_Truth" / "3.png", unknown)
    put_mask(root / "Ground_Truth" / "4.png", np.zeros((48, 64), np.uint8))
    put_mask(root / "Ground_Truth" / "5.png", cv2.merge([half()] * 3))
    palette = Image.fromarray(half(value=1), "P")
    palette.putpalette([0, 0, 0, 200, 30, 30])
    palette.save(root / "Ground_Truth" / "6.png")
    assert pack_source("masks", root, tmp_path / "out") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert len(shards) == 8
    assert shards.schema.fields["mask"] == Field("mask", "u1", names=("background", "person"))
    for key in "025678"[:5]:
        np.testing.assert_array_equal(mask_of(shards, key), half(value=1))
    np.testing.assert_array_equal(mask_of(shards, "1"), half(31, 23, 1))
    np.testing.assert_array_equal(mask_of(shards, "3"), unknown)
    assert not mask_of(shards, "4").any()


def test_what_does_not_fit_is_listed(root, tmp_path):
    put_mask(root / "Ground_Truth" / "1.png", half(48, 64))
    put_mask(root / "Ground_Truth" / "2.png", cv2.GaussianBlur(half(), (9, 9), 0))
    put_mask(root / "Ground_Truth" / "3.png", cv2.merge([half(), half(), half(value=9)]))
    (root / "Ground_Truth" / "4.png").write_bytes(b"\x89PNG nothing")
    (root / "Ground_Truth" / "5.png").unlink()
    put_mask(root / "Ground_Truth" / "99.png", half())
    put_picture(root / "Training_Images" / "6.png", 6)
    assert pack_source("masks", root, tmp_path / "out") == 0
    reasons = rejected(tmp_path / "out")
    for path, words in {
        "Training_Images/1.jpg": "mask: is 48 x 64, of another shape than its picture of 64 x 48",
        "Training_Images/2.jpg": "has shades of grey: type values=white",
        "Training_Images/3.jpg": "is coloured",
        "Training_Images/4.jpg": "mask: does not decode",
        "Training_Images/5.jpg": "has no mask in Ground_Truth",
        "Ground_Truth/99.png": "has no picture in Training_Images",
        "Training_Images/6.png": "has the name of Training_Images/6.jpg",
    }.items():
        assert words in reasons[path], path
    assert len(reasons) == 7
    assert len(packed_sets(tmp_path / "out")["train"]) == 3
    assert pack_source("masks", root, tmp_path / "white", "values=white") == 0
    assert "Training_Images/2.jpg" not in rejected(tmp_path / "white")


def test_numbers_of_more_classes_and_one_out_of_range(root, tmp_path):
    put_mask(root / "Ground_Truth" / "1.png", half(value=2))
    put_mask(root / "Ground_Truth" / "2.png", half(value=3))
    assert pack_source("masks", root, tmp_path / "out", "classes=[sky,sea,land]") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    np.testing.assert_array_equal(mask_of(shards, "1"), half(value=2))
    assert (mask_of(shards, "0") == half()).all()
    assert "has the number 3, not 0 to 2 or 255" in rejected(tmp_path / "out")["Training_Images/2.jpg"]


def test_folders_of_parts_and_suffixes(tmp_path):
    root = tmp_path / "src"
    for number, part in enumerate(("train", "train", "val")):
        put_picture(root / "pictures" / part / f"{number}.jpg", number)
        put_mask(root / "masks" / part / f"{number}_mask.png", half())
    words = ("images=pictures", "suffix=_mask")
    assert pack_source("masks", root, tmp_path / "out", *words) == 0
    assert {part: len(one) for part, one in packed_sets(tmp_path / "out").items()} == {"train": 2, "val": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("images=none",), "has no folder none; type images=FOLDER"),
        (("values=some",), "type auto, numbers or white"),
        (("classes=person",), "type 2 to 255 different names"),
        (("suffix=_mask",), "type images= and masks=, and suffix="),
    ],
)
def test_a_wrong_key_is_refused_on_a_line(root, tmp_path, capsys, words, message):
    assert pack_source("masks", root, tmp_path / "out", *words) != 0
    assert message in last_error(capsys)


@needs_real
def test_the_real_sample(tmp_path):
    assert pack_source("masks", REAL / "person_seg", tmp_path, "holdout=0.2") == 0
    sets = packed_sets(tmp_path)
    assert sum(map(len, sets.values())) == 36
    for shards in sets.values():
        parts = shards.pieces["mask"]
        shape = parts["width"].astype(float) / parts["height"] / (shards.width / shards.height.astype(float))
        assert (np.abs(shape - 1) < 0.02).all()
    assert any((one.pieces["mask"]["width"] != one.width).any() for one in sets.values())
