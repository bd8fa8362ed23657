"""COCO: classes, crowds, masks of polygons and run lengths, and annotations that cannot be."""

import json

import numpy as np
import pytest

from data_shards.sources.coco_masks import fault_of_outline, packed, paint
from tests.support.detection_sets import SIZE, boxes_by_key, coco, mask_of, put_picture
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import last_error, manifest_of, pack_source, packed_sets, rejected

WIDTH, HEIGHT = SIZE
SQUARE = [[10, 10, 30, 10, 30, 20, 10, 20]]


def annotation(number: int, image: object = 1, category: object = 1, box: object = (10, 10, 20, 10), **more):
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": 200.0}
    return entry | {"iscrowd": 0, "segmentation": SQUARE} | more


def runs_of(mask: np.ndarray) -> list[int]:
    """COCO's run lengths of a mask bool [h, w], column by column, beginning with what is outside."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def crowd_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:40, 40:60] = True
    return mask


def test_classes_are_numbered_as_typed_and_negatives_stay(tmp_path):
    crowd = {"size": [HEIGHT, WIDTH], "counts": runs_of(crowd_mask())}
    rows = [
        annotation(1),
        annotation(2, category=3, box=(2, 3, 4, 5)),
        annotation(3, box=(40, 30, 20, 10), iscrowd=1, segmentation=crowd),
        annotation(4, image=2, category=3),
    ]
    root = coco(tmp_path / "src", rows)
    assert pack_source("coco", root, tmp_path / "all") == 0
    assert boxes_by_key(packed_sets(tmp_path / "all")["train"])["000000000001"]["box_class"] == [0, 1, 0]
    assert pack_source("coco", root, tmp_path / "out", "classes=car,person", "masks=true") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert shards.schema.fields["box_class"].names == ("car", "person")
    assert shards.schema.fields["mask"].names == ("background", "car", "person")
    found = boxes_by_key(shards)
    assert found["000000000001"]["box_class"] == [1, 0, 1]
    assert found["000000000001"]["box_flags"] == [[0, 0], [0, 0], [1, 1]]
    assert found["000000000001"]["box_area"] == [200, 200, 200]
    assert found["000000000003"]["boxes"] == []
    mask = mask_of(shards, "000000000001")
    assert (mask[10:20, 10:30] > 0).all()
    assert (mask[crowd_mask()] == 2).all()
    assert not mask_of(shards, "000000000003").any()
    assert pack_source("coco", root, tmp_path / "one", "classes=person") == 0
    assert boxes_by_key(packed_sets(tmp_path / "one")["train"])["000000000002"]["boxes"] == []


def test_annotations_that_cannot_be_are_listed(tmp_path):
    rows = [
        annotation(1, box=[-5, 10, 20, 10]),
        annotation(2, box=[5, 5, 0, 3]),
        annotation(3, box=[5, 5, float("nan"), 3]),
        annotation(4, category=77),
        annotation(5, image=99),
        annotation(6, box=[5, 5, 9]),
        annotation(7, box=[-5, 10, 20, 10]),
        annotation(8, image=2, segmentation={"size": [HEIGHT, WIDTH + 1], "counts": [9]}, box=[4, 5, 6, 7]),
        annotation(
            10, image=2, box=[5, 30, -1, 3], area=10**400, segmentation=[[40, 30, 44, 30, 44, 34, 40, 34]]
        ),
        annotation(9, image=2, segmentation=[[1, 2, 3]], box=[30, 5, 6, 7]),
    ]
    root = coco(tmp_path / "src", rows)
    (root / "train2017" / "000000000003.jpg").unlink()
    put_picture(root / "train2017" / "stray.jpg")
    assert pack_source("coco", root, tmp_path / "out", "masks=true", "classes=person") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    found, reasons = boxes_by_key(shards), rejected(tmp_path / "out")
    assert found["000000000001"]["boxes"] == [[0, 10, 15, 10]]
    mended = manifest_of(shards.folder)["mended"]
    assert mended == {"boxes cut to their picture": 2, "boxes listed twice": 1}
    listed = "annotations/instances_train2017.json"
    for number, words in (
        (2, "is a box without area"),
        (3, "is not a box of finite numbers"),
        (4, "has the class 77, which the file does not list"),
        (5, "is of picture 99, which the file does not list"),
        (6, "not four numbers"),
        (8, f"has run lengths of size [48, 65], its picture is [{HEIGHT}, {WIDTH}]: its region"),
        (10, "is a box without area"),
        (9, "has a polygon of fewer than three corners: its region of the mask is unknown"),
    ):
        assert words in reasons[f"{listed}: annotation {number}"], number
    assert "there is no such picture" in reasons["train2017/000000000003.jpg"]
    assert reasons["train2017/stray.jpg"] == f"has no entry in {listed}"
    assert len(found["000000000002"]["boxes"]) == 2
    mask = mask_of(shards, "000000000002")
    assert (mask[5:12, 4:10] == 255).all()
    assert (mask[31:33, 41:43] == 1).all()  # the outline is good, whatever the box is
    assert (mask[5:12, 30:36] == 255).all()
    assert (mask == 255).sum() == 2 * 6 * 7


def test_a_picture_of_another_size_is_listed(tmp_path):
    root = coco(tmp_path / "src", [annotation(1)])
    put_picture(root / "train2017" / "000000000002.jpg", size=(50, 50))
    assert pack_source("coco", root, tmp_path / "out") == 0
    assert rejected(tmp_path / "out")["train2017/000000000002.jpg"].startswith("is 50 x 50, annotations/")


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_those_of_pycocotools(seed):
    from pycocotools import mask as reference

    rng = np.random.default_rng(seed)
    mask = rng.random((HEIGHT, WIDTH)) < (0.02, 0.5, 0.98)[seed % 3]
    encoded = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    compressed = {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    for outline in (compressed, {"size": [HEIGHT, WIDTH], "counts": runs_of(mask)}):
        assert fault_of_outline(outline, SIZE) == ""
        np.testing.assert_array_equal(paint(packed([(1, outline)], SIZE)), mask)


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        ([], "has no polygons"),
        (None, "has no polygons"),
        ([[1, 2, 3, 4, 5, float("inf")]], "not numbers near its picture"),
        ([[1, 2, 3, 4, 5, 1e9]], "not numbers near its picture"),
        ([[1, 2, 3, 4, 5, 10**400]], "not numbers near its picture"),
        ([[1, 2, 3, 4, 5, 6, 7]], "fewer than three corners"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, f"run lengths of 5 pixels, not {HEIGHT * WIDTH}"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5]}, "not whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": "~~"}, "do not decode"),
        ({"size": [HEIGHT, WIDTH], "counts": "5"}, "do not decode"),
    ],
)
def test_outlines_that_cannot_be(outline, words):
    assert words in fault_of_outline(outline, SIZE)


def test_smaller_objects_lie_above_larger_ones(tmp_path):
    whole = [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]
    rows = [
        annotation(1, category=3),
        annotation(2, box=[0, 0, WIDTH, HEIGHT], area=float(WIDTH * HEIGHT), segmentation=whole),
    ]
    root = coco(tmp_path / "src", rows, pictures=1)
    assert pack_source("coco", root, tmp_path / "out", "masks=true") == 0
    mask = mask_of(packed_sets(tmp_path / "out")["train"], "000000000001")
    assert (mask[11:19, 11:29] == 2).all()
    assert (mask[30:, :] == 1).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [(("classes=dog",), "dog is not a class; type some of person, car"), ((), "has no list `annotations`")],
)
def test_a_wrong_key_or_file_is_refused_on_a_line(tmp_path, capsys, words, message):
    root = coco(tmp_path / "src", [])
    if not words:
        path = root / "annotations" / "instances_train2017.json"
        path.write_text(json.dumps({"images": [], "categories": []}))
    assert pack_source("coco", root, tmp_path / "out", *words) != 0
    assert message in last_error(capsys)


@needs_real
def test_the_real_sample(tmp_path):
    assert pack_source("coco", REAL / "coco", tmp_path, "classes=person", "masks=true") == 0
    sets = packed_sets(tmp_path)
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 17, "val": 6}
    assert sum(len(shards.ragged["boxes"].rows) for shards in sets.values()) == 111
    assert not rejected(tmp_path)
