"""Boxes as sources state them: turned with their picture, cut, taken once; and sizes read from headers."""

import io

import numpy as np
import pytest
from PIL import Image

from data_shards.images.pixels import upright
from data_shards.shard_format.schema import declared_schema
from data_shards.sources.boxes import (
    CLIPPED,
    TWICE,
    Boxes,
    box_fields,
    picture_size,
    upright_box,
    upright_points,
    upright_size,
)
from tests.support.detection_sets import put_picture, wider
from tests.support.packed import pack_source, packed_sets
from tests.support.small_set import jpeg, photo


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_box_is_turned_with_its_pixels(turn):
    x, y, width, height = 5, 8, 20, 11
    image = np.zeros((40, 60), np.uint8)
    image[y : y + height, x : x + width] = 1
    turned = upright(image, turn)
    assert upright_size(60, 40, turn) == turned.shape[::-1]
    left, top, wide, high = map(int, upright_box((x, y, width, height), (60, 40), turn))
    assert turned.sum() == turned[top : top + high, left : left + wide].sum() == wide * high


@pytest.mark.parametrize("turn", range(1, 9))
def test_landmarks_are_turned_with_their_pixels(turn):
    """Left and right are those of the face: they change names where the picture is mirrored."""
    stated = [(10, 12), (30, 14), (20, 22), (12, 30), (-1, -1)]
    found = upright_points(stated, (60, 40), turn)
    names = [1, 0, 2, 4, 3] if turn in (2, 4, 5, 7) else [0, 1, 2, 3, 4]
    for place, name in enumerate(names):
        image = np.zeros((40, 60), np.uint8)
        x, y = stated[name]
        if x < 0:
            assert tuple(found[place]) == (-1, -1)
            continue
        image[y : y + 1, x : x + 1] = 1
        (row,), (column,) = np.nonzero(upright(image, turn))
        # a corner of the pixel: which one depends on the turn
        assert abs(found[place][0] - column - 0.5) == abs(found[place][1] - row - 0.5) == 0.5


def test_a_turned_picture_is_packed_with_turned_boxes(tmp_path):
    path = "0--Parade/0_Parade_a.jpg"
    text = f"{path}\n1\n5 8 20 11 0 0 0 0 0 0\n"
    root = wider(tmp_path / "src", {"val": text}, {"val": [path]})
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(photo(0, 64, 48)).save(file, "JPEG", exif=exif)
    (root / "WIDER_val" / "images" / path).write_bytes(file.getvalue())
    assert picture_size(str(root / "WIDER_val" / "images" / path)) == (64, 48, 6)
    assert pack_source("widerface", root, tmp_path / "out") == 0
    shards = packed_sets(tmp_path / "out")["val"]
    assert (shards.width[0], shards.height[0]) == (48, 64)
    assert shards.ragged["boxes"].rows.tolist() == [[48 - 8 - 11, 5, 11, 20]]


def test_rows_are_cut_taken_once_or_refused():
    boxes = Boxes((60, 40), flags=2)
    assert boxes.add((-0.25, 0, 10, 10), 0) == ""  # rounding, not a fault
    assert boxes.mended == []
    assert boxes.add((50, 30, 20, 20), 1, (1, 0), 33.0) == ""
    assert boxes.add((50, 30, 20, 20), 1) == ""
    assert boxes.add((50, 30, 20, 20), 0) == ""  # another class
    assert boxes.mended == [CLIPPED, CLIPPED, TWICE, CLIPPED]
    for box, words in (
        ((0, 0, float("inf"), 1), "finite"),
        ((0, 0, 10**400, 1), "finite"),
        ((float("nan"), 0, 1, 1), "finite"),
        ((0, 0, 3, 0), "without area"),
        ((60, 0, 3, 3), "outside of its picture of 60 x 40"),
    ):
        assert words in boxes.add(box, 0)
    rows, numbers, flags, areas = boxes.labels()
    np.testing.assert_allclose(rows, [[0, 0, 9.75, 10], [50, 30, 10, 10], [50, 30, 10, 10]])
    assert (numbers.tolist(), areas.tolist()) == ([0, 1, 0], [-1, 33, -1])
    assert flags.tolist() == [[0, 0], [1, 0], [0, 0]]
    assert [each.shape for each in Boxes((9, 9), 2).labels()] == [(0, 4), (0,), (0, 2), (0,)]


def test_the_fields_can_be_declared():
    schema = declared_schema(box_fields(("face",), ("ignore", "crowd")), None)
    assert [name for name, field in schema.fields.items() if field.rows_of == "boxes"] == [
        "box_class",
        "box_flags",
        "box_area",
    ]


def test_the_size_of_a_picture_whose_header_is_long(tmp_path):
    put_picture(tmp_path / "a.jpg", size=(64, 48))
    data = jpeg(photo(0, 64, 48))
    comment = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    (tmp_path / "b.jpg").write_bytes(data[:2] + comment + comment + data[2:])
    Image.fromarray(photo(0, 31, 17)).save(tmp_path / "c.png")
    assert picture_size(str(tmp_path / "a.jpg")) == picture_size(str(tmp_path / "b.jpg")) == (64, 48, 1)
    assert picture_size(str(tmp_path / "c.png")) == (31, 17, 1)
