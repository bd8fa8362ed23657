"""Text labels of YOLO: both layouts, polygons, pictures without labels, and rows that cannot be."""

import numpy as np
import pytest

from data_shards.sources.yolo_labels import largest_class
from tests.support.detection_sets import boxes_by_key, put_picture, put_text
from tests.support.packed import last_error, manifest_of, pack_source, packed_sets, rejected

NAMES = "names: {0: face, 1: hand}\n"


@pytest.fixture
def by_images(tmp_path):
    """images/<part> and labels/<part>, of pictures of 64 x 48 pixels."""
    root = tmp_path / "src"
    for number, name in enumerate(("train/a", "train/b", "train/none", "val/v")):
        put_picture(root / "images" / f"{name}.jpg", number)
    put_text(root / "labels" / "train" / "a.txt", "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.125 0.125\n")
    put_text(root / "labels" / "train" / "b.txt", "")
    put_text(root / "labels" / "val" / "v.txt", "1 0.5 0.5 0.75 0.5 0.75 0.75\n")
    put_text(root / "data.yaml", NAMES)
    return root


def test_boxes_are_in_pixels_and_parts_official(by_images, tmp_path):
    assert pack_source("yolo", by_images, tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 3, "val": 1}
    found = boxes_by_key(sets["train"])
    np.testing.assert_allclose(found["a"]["boxes"], [[24, 12, 16, 24], [12, 9, 8, 6]])
    assert found["a"]["box_class"] == [0, 1]
    assert found["b"]["boxes"] == found["none"]["boxes"] == []
    assert sets["train"].schema.fields["box_class"].names == ("face", "hand")
    assert manifest_of(sets["train"].folder)["mended"] == {
        "pictures without a file of labels, taken as empty": 1
    }
    np.testing.assert_allclose(boxes_by_key(sets["val"])["v"]["boxes"], [[32, 24, 16, 12]])
    assert manifest_of(sets["val"].folder)["mended"] == {"polygons taken as their boxes": 1}
    assert pack_source("yolo", by_images, tmp_path / "one", "partition=none") == 0
    assert {part: len(shards) for part, shards in packed_sets(tmp_path / "one").items()} == {"train": 4}


def test_folders_of_parts_with_images_and_labels_in_each(tmp_path):
    root = tmp_path / "src"
    for part in ("train", "valid"):
        put_picture(root / part / "images" / "a.jpg", len(part))
        put_text(root / part / "labels" / "a.txt", "2 0.5 0.5 0.5 0.5\n")
    assert pack_source("yolo", root, tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert sorted(sets) == ["train", "val"]
    assert sets["val"].schema.fields["box_class"].names == ("0", "1", "2")
    assert boxes_by_key(sets["val"])["a"]["box_class"] == [2]


def test_rows_are_mended_or_listed(by_images, tmp_path):
    rows = [
        "0 0.9 0.5 0.4 0.5",
        "0 0.9 0.5 0.4 0.5",
        "2 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2",
        "nan 0.5 0.5 0.2 0.2",
        "0 nan 0.5 0.2 0.2",
        "0 0.5 0.5 0 0.2",
        "0 1.5 0.5 0.2 0.2",
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 0.2 0.9",
        "face 0.5 0.5 0.2 0.2",
    ]
    put_text(by_images / "labels" / "train" / "a.txt", "\n".join(rows))
    put_text(by_images / "labels" / "train" / "gone.txt", "0 0.5 0.5 0.2 0.2\n")
    (by_images / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe0 0.5")
    assert pack_source("yolo", by_images, tmp_path / "out") == 0
    train = packed_sets(tmp_path / "out")["train"]
    np.testing.assert_allclose(boxes_by_key(train)["a"]["boxes"], [[44.8, 12, 19.2, 24]], atol=1e-5)
    mended = manifest_of(train.folder)["mended"]
    assert (mended["boxes cut to their picture"], mended["boxes listed twice"]) == (2, 1)
    reasons = rejected(tmp_path / "out")
    for line, words in enumerate(
        (
            "has the class 2, not 0 to 1",
            "has the class -1, not 0 to 1",
            "has the class 0.5, which is not a whole number",
            "has the class nan, which is not a whole number",
            "is not a box of finite numbers",
            "is a box without area",
            "is outside of its picture",
            "has 4 numbers, not 5",
            "has 6 numbers, not 5",
            "is not numbers",
        ),
        start=3,
    ):
        assert words in reasons[f"labels/train/a.txt:{line}"], line
    assert reasons["labels/train/gone.txt"] == "there is no such picture"
    assert "is not UTF-8 text" in reasons["images/train/b.jpg"]


def test_landmarks_behind_the_boxes(by_images, tmp_path):
    rows = [
        "0 0.5 0.5 0.25 0.5  0.45 0.4 0.55 0.4 0.5 0.5 -1 -1 0.55 1.25 ",
        "1 0.25 0.25 0.125 0.125",
        "1 0.5 0.5 0.75 0.5 0.75 0.75",
        "0 0.25 0.5 0.25 0.5 0.45 0.4 0.55 0.4 0.5 0.5 nan -1 0.55 0.6",
    ]
    put_text(by_images / "labels" / "train" / "a.txt", "\n".join(rows))
    put_text(by_images / "labels" / "val" / "v.txt", "")
    assert pack_source("yolo", by_images, tmp_path / "out", "points=5") == 0
    train = packed_sets(tmp_path / "out")["train"]
    found = boxes_by_key(train)["a"]
    np.testing.assert_allclose(found["boxes"], [[24, 12, 16, 24], [12, 9, 8, 6]])
    marks = [[28.8, 19.2], [35.2, 19.2], [32, 24], [-1, -1], [-1, -1]]  # the last one is below the picture
    np.testing.assert_allclose(found["box_points"], [marks, [[-1, -1]] * 5], atol=1e-5)
    assert train.schema.fields["box_points"].names[:2] == ("left_eye", "right_eye")
    assert manifest_of(train.folder)["mended"]["landmarks outside of their picture, taken as unknown"] == 1
    reasons = rejected(tmp_path / "out")
    assert "has 7 numbers, not 5, or 15 with its landmarks" in reasons["labels/train/a.txt:3"]
    assert "has a landmark that is not of finite numbers" in reasons["labels/train/a.txt:4"]


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        ("names: 3\n", (), "`names` is not a list of different names"),
        ("names: [a, a]\n", (), "`names` is not a list of different names"),
        (NAMES, ("classes=[a,a]",), "names a class twice"),
        (NAMES, ("partition=some",), "type auto or none"),
        (NAMES, ("points=3",), "points=3: type 5, the landmarks of faces, or leave it out"),
    ],
)
def test_wrong_names_and_keys_are_refused_on_a_line(by_images, tmp_path, capsys, table, words, message):
    put_text(by_images / "data.yaml", table)
    assert pack_source("yolo", by_images, tmp_path / "out", *words) != 0
    assert message in last_error(capsys)


def test_another_layout_is_refused_on_a_line(tmp_path, capsys):
    put_picture(tmp_path / "src" / "images" / "a.jpg")
    assert pack_source("yolo", tmp_path / "src", tmp_path / "out") != 0
    assert "has images, but no labels; add it" in last_error(capsys)


def test_the_largest_class_passes_over_what_is_no_label(tmp_path):
    texts = {
        "a": b"2 .5 .5 .1 .1\nx 1 2 3 4\n7.0 0 0 1 1\n8.5 0 0 1 1\n",
        "b": b"\xff\xfe9 0 0 1 1",
        "c": b"",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(text)
    paths = [str(tmp_path / f"{name}.txt") for name in (*texts, "gone")]
    assert largest_class(paths) == 7
    assert largest_class(paths[1:]) == -1
