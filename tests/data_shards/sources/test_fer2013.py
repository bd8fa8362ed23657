"""FER2013: the csv and the class folders, official parts, subsets, extra classes; damaged rows listed."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_shards.sources.fer2013 import CLASSES
from data_shards.sources.fer2013_csv import FerTable
from data_shards.sources.registry import open_source
from launch.cli import main
from tests.data_shards.sources.test_faces_from import picture
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import labels_by_key, last_error, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo

USAGES = ("Training", "PublicTest", "PrivateTest")
PARTS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


def face(number: int) -> np.ndarray:
    return photo(number, 48, 48)[..., 1]


def row(number: int, *, emotion: object = None, usage: str = "", pixels: str = "") -> str:
    pixels = pixels or " ".join(map(str, face(number).ravel()))
    return f"{number % 7 if emotion is None else emotion},{pixels},{usage or USAGES[number % 3]}"


def write_csv(
    path: Path, rows: list[str], *, header: str = "emotion,pixels,Usage", ending: str = "\n"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ending.join([header, *rows, ""]), newline="")
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_csv_becomes_its_three_parts_pixel_for_pixel(tmp_path, ending):
    write_csv(tmp_path / "src" / "fer2013.csv", [row(number) for number in range(21)], ending=ending)
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert set(sets) == {"train", "val", "test"}
    for usage, part in PARTS.items():
        shards = sets[part]
        assert shards.schema.fields["emotion"].names == CLASSES
        assert shards.schema.cls == "emotion"
        assert {key: labels["emotion"] for key, labels in labels_by_key(shards).items()} == {
            f"{number + 2:06d}": number % 7 for number in range(21) if USAGES[number % 3] == usage
        }
    source = open_source("fer2013", str(tmp_path / "src"))
    samples = list(source.samples())
    worker = pickle.loads(pickle.dumps(source))
    for number in (0, 10, 20):
        data = worker.read(samples[number])
        assert data == b"P5 48 48 255\n" + face(number).tobytes()
    assert main(["check", str(tmp_path / "out"), "workers=1"]) == 0


def test_the_columns_of_the_challenge_are_read(tmp_path):
    lines = [row(number).split(",") for number in range(6)]
    challenge = [f'{emotion},{usage},"{pixels}"' for emotion, pixels, usage in lines]
    write_csv(tmp_path / "src" / "icml_face_data.csv", challenge, header="emotion, Usage, pixels")
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out") == 0
    assert {part: len(each) for part, each in packed_sets(tmp_path / "out").items()} == dict.fromkeys(
        PARTS.values(), 2
    )
    train = [f'{emotion},"{pixels}"' for emotion, pixels, _ in lines]
    path = write_csv(tmp_path / "train.csv", train, header="emotion,pixels")
    assert pack_source("fer2013", path, tmp_path / "plain") == 0
    assert len(packed_sets(tmp_path / "plain")["train"]) == 6


def test_damaged_rows_are_listed_by_line(tmp_path):
    good = [row(number) for number in range(3)]
    pixels = good[0].split(",")[1]
    bad = [
        row(3, pixels=pixels + " 7"),
        row(4, pixels=pixels[:100]),
        row(5, emotion=7),
        row(6, emotion="happy"),
        row(7, usage="Testing"),
        row(8, pixels=pixels.rpartition(" ")[0] + " 256"),
        row(9, pixels=pixels.rpartition(" ")[0] + " x"),
        f"3,{pixels}",
    ]
    path = write_csv(tmp_path / "src" / "fer2013.csv", good + bad)
    path.write_text(path.read_text() + "\n" + row(10)[:5000])
    assert pack_source("fer2013", path, tmp_path / "out") == 0
    assert sum(map(len, packed_sets(tmp_path / "out").values())) == 3
    assert {int(name.partition(":")[2]): reason for name, reason in rejected(tmp_path / "out").items()} == {
        5: "has 2305 pixels of 2304 (48 x 48)",
        6: f"has {len(pixels[:100].split())} pixels of 2304 (48 x 48)",
        7: "its emotion '7' is not a number of 0 to 6",
        8: "its emotion 'happy' is not a number of 0 to 6",
        9: "its Usage 'Testing' is not Training, PublicTest or PrivateTest",
        10: "a pixel is not a number of 0 to 255",
        11: "a pixel is not a number of 0 to 255",
        12: "has 2 of the 3 columns",
        14: f"has {len(row(10)[:5000].split())} pixels of 2304 (48 x 48): the file ends in this line",
    }


def test_another_csv_is_refused(tmp_path, capsys):
    for text, message in (
        ("name,age\n1,2\n", "line 1: is not emotion,pixels,Usage"),
        ("", "line 1: is not emotion,pixels,Usage"),
        ("emotion,pixels,Usage\n" + "7" * 200_000, "line 2: has more than 131,072 bytes"),
    ):
        (tmp_path / "x.csv").write_text(text)
        assert pack_source("fer2013", tmp_path / "x.csv", tmp_path / "out") == 2
        assert message in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_equal_faces_stay_on_one_side_wherever_they_are(tmp_path):
    rows = [row(number % 20, emotion=number % 7) for number in range(60)]
    write_csv(tmp_path / "src" / "fer2013.csv", rows)
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out", "partition=none", "holdout=0.4") == 0
    sets = packed_sets(tmp_path / "out")
    found = {part: {(int(key) - 2) % 20 for key in labels_by_key(shards)} for part, shards in sets.items()}
    assert set(found) == {"train", "eval"}
    assert not found["train"] & found["eval"]
    assert len(found["train"] | found["eval"]) == 20
    write_csv(tmp_path / "src" / "fer2013.csv", rows[::-1][:40])  # other lines, the same faces
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "less", "partition=none", "holdout=0.4") == 0
    for part, shards in packed_sets(tmp_path / "less").items():
        assert {(59 - (int(key) - 2)) % 20 for key in labels_by_key(shards)} <= found[part]


def write_folders(root: Path, *, named: bool) -> Path:
    for part, usages in (("train", USAGES[:1]), ("test", USAGES[1:])):
        for number, name in enumerate(("Angry", "fear", "3", "Surprised")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for usage in usages:
                stem = f"{usage}_{number}" if named else f"{number}{usage[:2]}"
                (folder / f"{stem}.jpg").write_bytes(jpeg(face(10 * number + len(usage))))
    return root


@pytest.mark.parametrize("named", [True, False])
def test_parts_of_class_folders(tmp_path, named):
    src = write_folders(tmp_path / "src", named=named)
    (src / "train" / "Angry" / "cut.jpg").write_bytes(jpeg(face(1))[:300])
    (src / "notes.txt").write_text("x")
    assert pack_source("fer2013", src, tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    counts = {"train": 4, "val": 4, "test": 4} if named else {"train": 4, "test": 8}
    assert {part: len(each) for part, each in sets.items()} == counts
    for shards in sets.values():
        for key, labels in labels_by_key(shards).items():
            number = int(key.rpartition("_")[2][0])
            assert CLASSES[labels["emotion"]] == ("angry", "fear", "happy", "surprise")[number]
    reasons = rejected(tmp_path / "out")
    assert reasons["notes.txt"] == "is in no folder of a known class"
    assert reasons["train/Angry/cut.jpg"] == "truncated JPEG header"


def test_a_subset_and_a_further_class_are_numbered_as_typed(tmp_path):
    write_csv(tmp_path / "src" / "fer2013.csv", [row(number) for number in range(42)])
    bored = tmp_path / "bored"
    (bored / "album").mkdir(parents=True)
    for number in range(24):
        data = jpeg(picture((number % 2, 4 * number, 160), width=300, height=300))
        (bored / "album" / f"{number:02d}.jpg").write_bytes(data)
    (bored / "wall.jpg").write_bytes(jpeg(np.full((90, 90, 3), 50, np.uint8)))
    words = ["classes=[neutral,angry]", f"extra=bored:{bored}"]
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out", *words) == 0
    sets = packed_sets(tmp_path / "out")
    assert set(sets) == {"train", "val", "test"}  # the further class is in the official parts
    total = sum(np.bincount(shards.labels["emotion"], minlength=3) for shards in sets.values())
    missed = rejected(tmp_path / "out")
    assert total.tolist() == [6, 6, 25 - len(missed)]
    for shards in sets.values():
        assert shards.schema.fields["emotion"].names == ("neutral", "angry", "bored")
        assert set(shards.width) == {48}
    assert (sets["train"].labels["emotion"] == 2).sum() > 12
    assert missed["bored:wall.jpg"] == "shows no face that the detector finds"
    assert set(missed.values()) == {missed["bored:wall.jpg"]}
    assert len(missed) < 4
    words = [f"extra=[bored:{bored / 'album'}]", "extra_crop=none", "partition=none", "holdout=0.4"]
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "all", *words) == 0
    sets = packed_sets(tmp_path / "all")
    total = sum(np.bincount(shards.labels["emotion"], minlength=8) for shards in sets.values())
    assert total.tolist() == [6] * 7 + [24]
    shards = sets["eval"]
    with open(shards.folder / "fer2013-000000.tar", "rb") as file:
        file.seek(int(shards.offset[0]))
        image = simplejpeg.decode_jpeg(file.read(int(shards.size[0])), "GRAY")
    assert image.shape == (48, 48, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["classes=bored"], "classes=bored: bored is not a class; type some of angry, disgust"),
        (["classes=fear,fear"], "names a class twice"),
        (["extra=bored"], "extra=bored: it is not a folder; type extra=CLASS:FOLDER"),
        (["extra=bored:/nowhere"], "extra=bored:/nowhere: /nowhere is not a folder"),
        (["extra=happy:."], "there is a class happy already; type another name"),
        (["extra_crop=some"], "extra_crop=some: type faces, or none"),
        (["margin=-1"], "margin=-1: type a share"),
        (["partition=public"], "partition=public: type auto, official or none"),
        (["holdout=0.2"], "has official splits here (test, train, val)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, capsys, words, message):
    write_csv(tmp_path / "src" / "fer2013.csv", [row(number) for number in range(3)])
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out", *words) == 2
    assert message in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_folders_without_parts_and_without_classes_are_refused(tmp_path, capsys):
    (tmp_path / "src" / "happy").mkdir(parents=True)
    (tmp_path / "src" / "happy" / "1.jpg").write_bytes(jpeg(face(1)))
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out", "partition=official") == 2
    assert "states no official part; type partition=none" in last_error(capsys)
    (tmp_path / "src" / "happy").rename(tmp_path / "src" / "cats")
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out") == 2
    assert "has no fer2013.csv and no folders angry, disgust" in last_error(capsys)


def test_a_csv_beside_class_folders_is_refused(tmp_path, capsys):
    write_csv(tmp_path / "src" / "fer2013.csv", [row(number) for number in range(3)])
    (tmp_path / "src" / "happy").mkdir()
    (tmp_path / "src" / "happy" / "1.jpg").write_bytes(jpeg(face(1)))
    assert pack_source("fer2013", tmp_path / "src", tmp_path / "out") == 2
    assert "has fer2013.csv and class folders too: type src=" in last_error(capsys)
    assert pack_source("fer2013", tmp_path / "src" / "fer2013.csv", tmp_path / "out") == 0


def test_a_table_is_not_held_in_memory(tmp_path):
    path = write_csv(tmp_path / "fer2013.csv", [row(number % 3) for number in range(200)])
    tracemalloc.start()
    table = FerTable(str(path))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.rows) == 200
    assert path.stat().st_size > 1_500_000
    assert kept < 200_000
    assert len(pickle.dumps(table)) < 20_000


@needs_real
def test_real_fer2013(tmp_path):
    assert pack_source("fer2013", REAL / "fer2013" / "fer2013_truncated_as_found.csv", tmp_path / "cut") == 0
    assert len(packed_sets(tmp_path / "cut")["train"]) == 31
    assert rejected(tmp_path / "cut") == {
        "fer2013_truncated_as_found.csv:33": "has 114 pixels of 2304 (48 x 48): the file ends in this line"
    }
    assert pack_source("fer2013", REAL / "fer2013" / "test", tmp_path / "test") == 0
    assert {part: len(each) for part, each in packed_sets(tmp_path / "test").items()} == {"val": 563}
