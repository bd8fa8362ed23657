"""UTKFace: labels from names, malformed names listed, every image of an unknown person."""

import numpy as np
import pytest

from data_shards.sources.utkface import read_name, without_endings
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import labels_by_key, last_error, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo

DATE = "20170116220224657"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (f"26_0_1_{DATE}.jpg.chip.jpg", (26, 0, 1)),
        (f"116_1_4_{DATE}.jpg", (116, 1, 4)),
        (f"0_1_0_{DATE}.JPG.chip.JPG", (0, 1, 0)),
        (f"5_1_2_{DATE}.chip.png", (5, 1, 2)),
        (f"5_1_2_{DATE}", (5, 1, 2)),
    ],
)
def test_names_are_read_with_all_endings(name, labels):
    assert read_name(without_endings(name)) == (labels, "")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("39_1_20170116174525125", "has 3 of the 4 parts"),
        ("holiday", "has 1 of the 4 parts"),
        (f"1_2_3_4_{DATE}", "has 5 of the 4 parts"),
        (f"x_0_1_{DATE}", "the age in its name is not a number"),
        (f"-1_0_1_{DATE}", "the age in its name is not a number"),
        (f"٣_0_1_{DATE}", "the age in its name is not a number"),
        (f"30__1_{DATE}", "the gender in its name is not a number"),
        (f"117_0_1_{DATE}", "the age 117 in its name is not 0 to 116"),
        (f"30_2_1_{DATE}", "the gender 2 in its name is not 0 to 1"),
        (f"30_1_5_{DATE}", "the race 5 in its name is not 0 to 4"),
        (f"30_1_4_{DATE[:-1]}", "the date in its name is not 17 digits"),
        (f"30_1_4_{DATE} ", "the date in its name is not 17 digits"),
    ],
)
def test_malformed_names_have_a_reason(name, fault):
    labels, reason = read_name(name)
    assert labels == ()
    assert fault in reason


def test_pack_takes_every_format_and_lists_the_rest(tmp_path):
    import cv2

    src = tmp_path / "src"
    (src / "part1").mkdir(parents=True)
    names = {n: f"{20 + n}_{n % 2}_{n % 5}_{DATE[:-2]}{n:02d}" for n in range(40)}
    for number, name in names.items():
        image = photo(number, 24, 24)
        ending = ("jpg", "jpg.chip.jpg", "jfif", "webp", "pgm")[number % 5]
        if ending in ("webp", "pgm"):
            data = cv2.imencode(f".{ending}", image if ending == "webp" else image[..., 0])[1].tobytes()
        else:
            data = jpeg(image)
        (src / "part1" / f"{name}.{ending}").write_bytes(data)
    (src / f"61_1_{DATE}.jpg.chip.jpg").write_bytes(jpeg(photo(90, 24, 24)))
    (src / f"200_1_1_{DATE}.jpg").write_bytes(jpeg(photo(91, 24, 24)))
    (src / f"30_1_1_{DATE}.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert pack_source("utkface", src, out, "holdout=0.3", "val=0.2") == 0
    sets = packed_sets(out)
    found = [labels_by_key(shards) for shards in (sets["train"], sets["val"], sets["eval"])]
    assert sum(map(len, found)) == 40
    together = {key: labels for part in found for key, labels in part.items()}
    assert together == {
        name: {"identity": -1, "age": 20 + number, "gender": number % 2, "race": number % 5}
        for number, name in names.items()
    }
    assert sets["train"].schema.fields["race"].names == ("White", "Black", "Asian", "Indian", "other")
    assert {path.partition("_")[0]: reason for path, reason in rejected(out).items()} == {
        "61": "its name has 3 of the 4 parts age_gender_race_date",
        "200": "the age 200 in its name is not 0 to 116",
        "30": "not a picture (JPEG, PNG, PPM, BMP, WEBP, TIFF, GIF)",
    }


def test_another_folder_is_refused(tmp_path, capsys):
    assert pack_source("utkface", tmp_path / "absent", tmp_path / "out") == 2
    assert "is not a folder; give the folder that holds the images" in last_error(capsys)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cat.jpg").write_bytes(jpeg(photo(0, 24, 24)))
    assert pack_source("utkface", tmp_path / "src", tmp_path / "out") == 2
    assert "no file is named <age>_<gender>_<race>_<date>.jpg" in last_error(capsys)
    assert not (tmp_path / "out").exists()


@needs_real
def test_real_utkface(tmp_path):
    assert pack_source("utkface", REAL / "utkface", tmp_path / "out", "holdout=0.2") == 0
    sets = packed_sets(tmp_path / "out")
    assert sum(map(len, sets.values())) == 500
    assert len(rejected(tmp_path / "out")) == 4
    assert all(path.startswith("ill_named/") for path in rejected(tmp_path / "out"))
    ages = np.concatenate([shards.labels["age"] for shards in sets.values()])
    assert 0 < ages.min() < 5
    assert 80 < ages.max() <= 116


def test_pack_says_that_all_people_are_unknown(tmp_path, capsys):
    src = tmp_path / "src"
    src.mkdir()
    for number in range(6):
        (src / f"{20 + number}_0_1_{DATE[:-1]}{number}.jpg").write_bytes(jpeg(photo(number, 24, 24)))
    assert pack_source("utkface", src, tmp_path / "out", "holdout=0.5", "holdout.exact=true") == 0
    said = capsys.readouterr().out
    assert "train: 3 images of unknown people in 1 shards" in said
    assert "only 3 images of unknown people: figures and thresholds from so few are rough" in said
