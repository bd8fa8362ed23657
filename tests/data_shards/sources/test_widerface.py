"""WIDER FACE: flags, pictures without faces, and rows and pictures that cannot be."""

import numpy as np
import pytest

from data_shards.inspect.check import check_set
from data_shards.sources.widerface import FLAGS
from launch.cli import main
from tests.support.detection_sets import boxes_by_key, wider
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import last_error, manifest_of, pack_source, packed_sets, rejected

TRAIN = """\
0--Parade/0_Parade_a.jpg
2
3 4 10 12 0 0 0 0 0 0
20 5 8 9 2 1 1 1 2 1
4--Dancing/4_Dancing_b.jpg
0
0 0 0 0 0 0 0 0 0 0
4--Dancing/4_Dancing_c.jpg
7
50 30 30 30 1 0 0 0 1 0
3 4 0 12 0 0 0 0 0 0
3 4 10 -2 0 0 0 0 0 0
nan 4 10 12 0 0 0 0 0 0
80 4 10 12 0 0 0 0 0 0
5 6 7 8 0 0 0 0 0 0
5 6 7 8 0 0 0 0 0 0
4--Dancing/4_Dancing_d.jpg
3
5 6 7 8 0 0 0 0 0 0
4--Dancing/4_Dancing_gone.jpg
1
5 6 7 8 0 0 0 0 0 0
4--Dancing/4_Dancing_e.jpg
2
5 6 7 8 0 0 0 0 0 0
5 6 seven 8 0 0 0 0 0 0
"""
VAL = "0--Parade/0_Parade_v.jpg\n0\n20--Family_Group/20_Family_Group_w.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n"
PICTURES = {
    "train": ["0--Parade/0_Parade_a.jpg", *(f"4--Dancing/4_Dancing_{letter}.jpg" for letter in "bcdef")],
    "val": ["0--Parade/0_Parade_v.jpg", "20--Family_Group/20_Family_Group_w.jpg"],
}

MARKS = """\
3 4 10 12 4 6 0 9 6 0 7 9 0 5 12 0 9 12 0 0.9
# 0--Parade/0_Parade_a.jpg
3 4 10 12 4.5 6 0.0 9 6.25 0.0 7 9 1.0 -1.0 -1.0 -1.0 70 12 0.0 0.82
20 5 8 9 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1
21 5 8 9 22 7 0 26 7 0 24 9 0 22 12 0 26 12 0 0.5
3 4 10 12 4 6 0 9 6 0 7 9 0 5 12 0 9 12 0 0.9
3 4 10 12 4 6
nan 4 10 12 4 6 0 9 6 0 7 9 0 5 12 0 9 12 0 0.9
3 four 10 12
# 4--Dancing/4_Dancing_none.jpg
5 6 7 8 4 6 0 9 6 0 7 9 0 5 12 0 9 12 0 0.9
# 20--Family_Group/20_Family_Group_w.jpg
1 2 3 4
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root = wider(tmp_path_factory.mktemp("wider"), {"train": TRAIN, "val": VAL}, PICTURES)
    out = tmp_path_factory.mktemp("out")
    assert pack_source("widerface", root, out) == 0
    return out


def test_official_parts_keep_flags_and_pictures_without_faces(packed):
    sets = packed_sets(packed)
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 4, "val": 2}
    train, val = (boxes_by_key(sets[part]) for part in ("train", "val"))
    first = train["0_Parade_a"]
    assert first["boxes"] == [[3, 4, 10, 12], [20, 5, 8, 9]]
    assert first["box_class"] == [0, 0]
    assert first["box_area"] == [-1, -1]
    set_flags = [[name for name, bit in zip(FLAGS, bits, strict=True) if bit] for bits in first["box_flags"]]
    words = ["ignore", "invalid", "heavy_blur", "expression", "illumination", "heavy_occluded", "pose"]
    assert set_flags == [[], words]
    assert train["4_Dancing_b"]["boxes"] == val["0_Parade_v"]["boxes"] == []
    assert sets["val"].schema.fields["event"].names == ("0--Parade", "4--Dancing", "20--Family_Group")
    assert not list(check_set(sets["train"].folder, workers=1))


def test_rows_are_mended_or_listed_and_counted(packed):
    train = packed_sets(packed)["train"]
    found = boxes_by_key(train)["4_Dancing_c"]["boxes"]
    assert found == [[50, 30, 14, 18], [5, 6, 7, 8]]
    manifest = manifest_of(train.folder)
    assert manifest["mended"] == {"boxes cut to their picture": 1, "boxes listed twice": 1}
    reasons = rejected(packed)
    where = "wider_face_split/wider_face_train_bbx_gt.txt"
    for line, words in (
        (11, "is a box without area, 0 x 12"),
        (12, "is a box without area, 10 x -2"),
        (13, "is not a box of finite numbers"),
        (14, "is outside of its picture of 64 x 48"),
        (26, "is not ten numbers"),
    ):
        assert words in reasons[f"{where}:{line}"], line
    assert reasons[f"{where}:20"] == "4--Dancing/4_Dancing_gone.jpg: there is no such picture"
    assert reasons["WIDER_train/images/4--Dancing/4_Dancing_d.jpg"] == "states 3 faces, but 1 rows follow"
    assert "has no entry in wider_face_train" in reasons["WIDER_train/images/4--Dancing/4_Dancing_f.jpg"]
    assert manifest["rejected"] == len(reasons) == 8


def test_the_summary_counts_what_was_mended(tmp_path, capsys):
    root = wider(tmp_path / "src", {"val": VAL.replace("1 2 3 4", "60 2 9 4")}, PICTURES)
    assert pack_source("widerface", root, tmp_path / "out") == 0
    assert "mended 1 boxes cut to their picture" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "out")]) == 0
    assert "1 boxes cut to their picture" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no picture as EVENT/NAME.jpg; restore it"),
        (None, "has WIDER_val, but no wider_face_split/"),
    ],
)
def test_another_folder_is_refused_on_a_line(tmp_path, capsys, text, words):
    root = wider(tmp_path / "src", {"val": text or ""}, PICTURES)
    if text is None:
        (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").unlink()
    assert pack_source("widerface", root, tmp_path / "out") != 0
    assert words in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_landmarks_join_their_faces_and_rows_that_cannot_are_listed(tmp_path):
    root = wider(tmp_path / "src", {"train": TRAIN, "val": VAL}, PICTURES)
    (tmp_path / "label.txt").write_text(MARKS)
    assert pack_source("widerface", root, tmp_path / "out", f"landmarks={tmp_path / 'label.txt'}") == 0
    sets = packed_sets(tmp_path / "out")
    field = sets["val"].schema.fields["box_points"]
    assert (field.kind, field.shape, field.rows_of) == ("points", (5, 2), "boxes")
    assert field.names == ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    train, unknown = boxes_by_key(sets["train"]), [[-1, -1]] * 5
    # the last landmark is outside of the picture of 64 pixels
    marked = [[4.5, 6], [9, 6.25], [7, 9], [-1, -1], [-1, -1]]
    assert train["0_Parade_a"]["box_points"] == [marked, unknown]
    assert train["4_Dancing_c"]["box_points"] == [unknown] * 2
    assert boxes_by_key(sets["val"])["20_Family_Group_w"]["box_points"] == [unknown]
    assert not list(check_set(sets["train"].folder, workers=1))
    mended = manifest_of(sets["train"].folder)["mended"]
    assert mended["landmarks outside of their picture, taken as unknown"] == 1
    reasons = rejected(tmp_path / "out")
    for line, words in (
        (1, "is of no picture"),
        (5, "0--Parade/0_Parade_a.jpg: is no face of wider_face_train_bbx_gt.txt"),
        (6, "comes twice"),
        (7, "is not 4, 19 or 20 finite numbers"),
        (8, "is not 4, 19 or 20 finite numbers"),
        (9, "is not 4, 19 or 20 finite numbers"),
        (11, "4--Dancing/4_Dancing_none.jpg: there is no such picture"),
    ):
        assert words in reasons[f"label.txt:{line}"], line
    assert len(reasons) == 8 + 7


def test_a_file_of_landmarks_that_is_not_there_is_refused(tmp_path, capsys):
    root = wider(tmp_path / "src", {"val": VAL}, PICTURES)
    assert pack_source("widerface", root, tmp_path / "out", f"landmarks={tmp_path / 'no.txt'}") != 0
    assert "no.txt: there is no such file; give RetinaFace's label.txt" in last_error(capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows of faces with landmarks below a picture's `# EVENT/NAME.jpg`: give"),
        ("0--Parade/a.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n", "has no rows of faces with landmarks"),
        ("# 9--Else/a.jpg\n4 3 12 14" + " 8 9 0" * 5 + "\n", "has no picture of"),
    ],
)
def test_another_file_than_that_of_landmarks_is_refused(tmp_path, capsys, text, words):
    root = wider(tmp_path / "src", {"val": VAL}, PICTURES)
    (tmp_path / "label.txt").write_text(text)
    assert pack_source("widerface", root, tmp_path / "out", f"landmarks={tmp_path / 'label.txt'}") != 0
    assert words in last_error(capsys)


@needs_real
def test_the_real_sample(tmp_path):
    assert pack_source("widerface", REAL / "widerface", tmp_path) == 0
    sets = packed_sets(tmp_path)
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 24, "val": 16}
    listed = sum(
        len(row.split()) == 10 and set(row.split()) != {"0"}
        for part in sets
        for row in (REAL / "widerface" / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt")
        .read_text()
        .splitlines()
    )
    assert sum(len(shards.ragged["boxes"].rows) for shards in sets.values()) == listed
    for shards in sets.values():
        boxes = shards.ragged["boxes"]
        owners = np.repeat(np.arange(len(shards)), np.diff(boxes.start.astype(int)))
        assert (boxes.rows[:, 0] + boxes.rows[:, 2] <= shards.width[owners]).all()
        assert not rejected(tmp_path)
