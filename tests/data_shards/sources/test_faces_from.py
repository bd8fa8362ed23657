"""The largest face of a picture: drawn faces on plain grounds, found, cut, grey and 48 pixels."""

import cv2
import numpy as np
import pytest

from data_shards.faces.generator import draw
from data_shards.sources.faces_from import cut, face_of, largest_face
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import labels_by_key, last_error, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg


def face(number: int = 0, side: int = 160) -> np.ndarray:
    """A drawn face that the detector finds."""
    return draw((0, 2, 11, 19)[number], 0, seed=0, size=side).image


def picture(*faces: tuple[int, int, int], width: int = 500, height: int = 400) -> np.ndarray:
    """A plain picture with drawn faces, each (number, x, side)."""
    image = np.full((height, width, 3), 90, np.uint8)
    for number, x, side in faces:
        image[100 : 100 + side, x : x + side] = face(number, side)
    return image


def test_the_largest_face_is_found_wherever_it_is():
    for x in (20, 200, 330):
        left, top, side = largest_face(picture((0, x, 160)))
        centre = left + side / 2 - x, top + side / 2 - 100
        assert 50 < side < 130
        assert np.abs(np.subtract(centre, (85, 88))).max() < 25
    left, _, side = largest_face(picture((0, 300, 120), (2, 20, 220)))
    assert left + side / 2 < 250
    assert largest_face(np.full((300, 300, 1), 128, np.uint8)) is None
    assert largest_face(np.zeros((3, 900, 3), np.uint8)) is None


def test_a_large_picture_is_searched_small_and_cut_at_full_size():
    small, large = picture((0, 200, 160)), cv2.resize(picture((0, 200, 160)), None, fx=4, fy=4)
    near, far = np.array(largest_face(small)), np.array(largest_face(large))
    assert np.abs(far / 4 - near).max() < 12


@pytest.mark.parametrize(
    ("box", "margin", "place"),
    [
        ((10, 20, 30), 0.0, (10, 20, 30)),
        ((10, 20, 30), 0.2, (4, 14, 42)),
        ((0, 0, 30), 0.5, (0, 0, 60)),  # moved inside
        ((70, 50, 30), 0.1, (64, 44, 36)),
        ((10, 20, 60), 0.5, (0, 0, 80)),  # the picture is smaller
    ],
)
def test_the_margin_stays_inside_of_the_picture(box, margin, place):
    image = np.arange(80 * 100, dtype=np.int32).reshape(80, 100, 1)
    x, y, side = place
    found = cut(image, box, margin=margin)
    assert found.shape == (side, side, 1)
    assert found[0, 0, 0] == y * 100 + x


def test_size_and_colour_are_chosen():
    data = jpeg(picture((0, 200, 160)))
    assert face_of(data).startswith(b"P5 48 48 255\n")
    assert face_of(data, size=64, grey=False).startswith(b"P6 64 64 255\n")


def test_pack_lists_pictures_without_a_face(tmp_path):
    src = tmp_path / "src"
    for name in ("bored", "calm"):
        (src / name).mkdir(parents=True)
    (src / "bored" / "one.jfif").write_bytes(jpeg(picture((0, 200, 160))))
    (src / "bored" / "two.webp").write_bytes(
        cv2.imencode(".webp", picture((2, 100, 160))[..., ::-1])[1].tobytes()
    )
    grey = cv2.cvtColor(picture((0, 40, 160)), cv2.COLOR_RGB2GRAY)
    (src / "calm" / "three.pgm").write_bytes(cv2.imencode(".pgm", grey)[1].tobytes())
    (src / "calm" / "wall.png").write_bytes(
        cv2.imencode(".png", np.full((200, 200, 3), 80, np.uint8))[1].tobytes()
    )
    (src / "calm" / "text.jpg").write_bytes(b"hello")
    (src / "stray.jpg").write_bytes(jpeg(picture((0, 200, 160))))
    out = tmp_path / "out"
    assert pack_source("faces_from", src, out) == 0
    shards = packed_sets(out)["train"]
    labels = {key: found["class"] for key, found in labels_by_key(shards).items()}
    assert labels == {"one": 0, "two": 0, "three": 1}
    assert shards.schema.fields["class"].names == ("bored", "calm")
    assert set(shards.width) == set(shards.height) == {48}
    assert rejected(out) == {
        "stray.jpg": "lies beside the class folders",
        "calm/wall.png": "shows no face that the detector finds",
        "calm/text.jpg": "not a picture (JPEG, PNG, PPM, BMP, WEBP, TIFF, GIF)",
    }


def test_one_class_in_any_folders_at_another_size(tmp_path, capsys):
    src = tmp_path / "src"
    (src / "2019").mkdir(parents=True)
    for number, place in enumerate(("a.jpg", "2019/b.jpg")):
        (src / place).write_bytes(jpeg(picture((number, 200, 160))))
    assert pack_source("faces_from", src, tmp_path / "out", "label=bored", "size=64", "margin=0.2") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert (len(shards), set(shards.width)) == (2, {64})
    assert shards.schema.fields["class"].names == ("bored",)
    for words, message in (
        (["margin=7"], "margin=7: type a share of the face from 0 to 2"),
        ([], "has no class folders; give the folder that has them, or type label=CLASS"),
    ):
        assert pack_source("faces_from", src / "2019", tmp_path / "x", *words) == 2
        assert message in last_error(capsys)


@needs_real
def test_real_faces_are_found(tmp_path):
    src = REAL / "lfw" / "lfw-deepfunneled"
    folders = sorted(src.iterdir())[:12]
    for folder in folders:
        (tmp_path / "src" / folder.name).mkdir(parents=True)
        data = (folder / f"{folder.name}_0001.jpg").read_bytes()
        (tmp_path / "src" / folder.name / "1.jpg").write_bytes(data)
        left, top, side = largest_face(cv2.imread(str(folder / f"{folder.name}_0001.jpg"))[..., ::-1])
        assert abs(left + side / 2 - 125) < 30
        assert abs(top + side / 2 - 125) < 30
    assert pack_source("faces_from", tmp_path / "src", tmp_path / "out", "label=lfw") == 0
    assert len(packed_sets(tmp_path / "out")["train"]) == 12
