"""AffectNet: class folders by name and number, annotated folders, tables as published; faults listed."""

from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.affectnet import CLASSES, PUBLISHED
from tests.support.packed import labels_by_key, last_error, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo

COLUMNS = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)


def write(path: Path, number: int, *, side: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(photo(number, side, side)))


def emotions(out: Path) -> dict[str, str]:
    """{stem: name of its class} of all sets."""
    found = {}
    for shards in packed_sets(out).values():
        names = shards.schema.fields["emotion"].names
        found |= {key: names[labels["emotion"]] for key, labels in labels_by_key(shards).items()}
    return found


def parts(out: Path) -> dict[str, int]:
    return {part: len(shards) for part, shards in packed_sets(out).items()}


def test_the_classes_are_those_of_the_job():
    assert CLASSES == ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert sorted(PUBLISHED) == list(CLASSES)


def test_folders_by_name_in_official_parts(tmp_path):
    for part in ("Train", "val"):
        for number, name in enumerate((*CLASSES, "Happiness", "angry")):
            write(tmp_path / "src" / part / name / f"{part}{number}.jpg", number + 20 * (part == "val"))
    write(tmp_path / "src" / "Train" / "boredom" / "x.jpg", 90)
    assert pack_source("affectnet", tmp_path / "src", tmp_path / "out") == 0
    assert parts(tmp_path / "out") == {"train": 10, "val": 10}
    expected = [*CLASSES, "happy", "anger"]
    assert emotions(tmp_path / "out") == {
        f"{part}{number}": name for part in ("Train", "val") for number, name in enumerate(expected)
    }
    assert rejected(tmp_path / "out") == {"Train/boredom/x.jpg": "is in no folder of a known class"}
    words = ["classes=[sad,happy]", "partition=none"]
    assert pack_source("affectnet", tmp_path / "src", tmp_path / "some", *words) == 0
    shards = packed_sets(tmp_path / "some")["train"]
    assert shards.schema.fields["emotion"].names == ("sad", "happy")
    assert np.bincount(shards.labels["emotion"]).tolist() == [2, 4]


@pytest.mark.parametrize(("words", "names"), [([], CLASSES), (["numbers=published"], PUBLISHED)])
def test_folders_by_number(tmp_path, words, names):
    for number in range(8):
        write(tmp_path / "src" / str(number) / f"i{number}.jpg", number)
    assert pack_source("affectnet", tmp_path / "src", tmp_path / "out", *words) == 0
    assert emotions(tmp_path / "out") == {f"i{number}": name for number, name in enumerate(names)}
    assert packed_sets(tmp_path / "out")["train"].schema.fields["emotion"].names == CLASSES


def test_annotated_folders_have_the_numbers_of_the_authors(tmp_path):
    for part, low in (("train_set", 0), ("val_set", 8)):
        (tmp_path / "src" / part / "annotations").mkdir(parents=True)
        for number in range(8):
            write(tmp_path / "src" / part / "images" / f"{low + number}.jpg", low + number)
            np.save(
                tmp_path / "src" / part / "annotations" / f"{low + number}_exp.npy", np.array(str(number))
            )
    (tmp_path / "src" / "val_set" / "annotations" / "9_exp.npy").unlink()
    (tmp_path / "src" / "val_set" / "annotations" / "10_exp.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "src" / "val_set" / "annotations" / "11_exp.npy", np.array([{}], dtype=object))
    assert pack_source("affectnet", tmp_path / "src", tmp_path / "out") == 0
    assert parts(tmp_path / "out") == {"train": 8, "val": 5}
    assert {key: name for key, name in emotions(tmp_path / "out").items() if int(key) < 8} == {
        str(number): name for number, name in enumerate(PUBLISHED)
    }
    assert rejected(tmp_path / "out") == {
        "val_set/images/9.jpg": "has no annotation _exp.npy",
        "val_set/images/10.jpg": "its annotation _exp.npy is damaged",
        "val_set/images/11.jpg": "its annotation _exp.npy is damaged",
    }


def write_tables(root: Path) -> Path:
    rows = []
    for number in range(11):
        write(root / "Manually_Annotated_Images" / str(number % 3) / f"t{number}.jpg", number, side=40)
        rows.append(f"{number % 3}/t{number}.jpg,4,6,20,20,1.5;2.5,{number},{0.1 * number - 0.5:.2f},-0.25")
    rows += [
        "0/absent.jpg,4,6,20,20,1;2,3,0,0",
        "../outside.jpg,4,6,20,20,1;2,3,0,0",
        "1/t1.jpg,4,6,20,20,1;2,3,0,0",
        "2/t2.jpg,4,6,20",
        '"0/nul\0.jpg",4,6,20,20,1;2,3,0,0',
    ]
    (root / "training.csv").write_text("\n".join([COLUMNS, *rows, ""]))
    write(root / "Manually_Annotated_Images" / "v" / "v0.jpg", 50, side=40)
    write(root / "Manually_Annotated_Images" / "v" / "v1.jpg", 51, side=40)
    rows = ["v/v0.jpg,1,1,9,9,1;2,1,-2,-2", "v/v1.jpg,NULL,,,,,happy,0.5,0.5"]
    (root / "validation.csv").write_text("\n".join([*rows, ""]))  # without a line of names
    return root


def test_tables_as_published(tmp_path):
    src = write_tables(tmp_path / "src")
    assert pack_source("affectnet", src, tmp_path / "out") == 0
    assert parts(tmp_path / "out") == {"train": 8, "val": 2}
    assert emotions(tmp_path / "out") == {
        **{f"t{number}": name for number, name in enumerate(PUBLISHED)},
        "v0": "happy",
        "v1": "happy",
    }
    train, val = (labels_by_key(packed_sets(tmp_path / "out")[part]) for part in ("train", "val"))
    assert train["t7"]["valence"] == pytest.approx(0.2)
    assert train["t7"]["arousal"] == -0.25
    assert (val["v0"]["valence"], val["v1"]["arousal"]) == (-2, 0.5)
    reasons = rejected(tmp_path / "out")
    place = "Manually_Annotated_Images"
    assert reasons == {
        f"{place}/2/t8.jpg": "its emotion is 8, none",
        f"{place}/0/t9.jpg": "its emotion is 9, uncertain",
        f"{place}/1/t10.jpg": "its emotion is 10, no face",
        "0/absent.jpg": "is in the table, but there is no such picture",
        "0/nul\\x00.jpg": "is in the table, but there is no such picture",
        "../outside.jpg": "its path in the table leads out of the folder",
        f"{place}/1/t1.jpg": "is in the table twice",
        "2/t2.jpg": "its row in the table is cut off or has too many columns",
    }
    assert pack_source("affectnet", src / "training.csv", tmp_path / "cut", "crop=true") == 0
    shards = packed_sets(tmp_path / "cut")["train"]
    assert (len(shards), set(shards.width)) == (8, {20})


def test_a_small_table_with_names(tmp_path):
    for number, name in enumerate(("anger", "surprise", "boredom")):
        write(tmp_path / "src" / name / f"{number}.jpg", number)
    lines = [
        ",pth,label,relFCs",
        "0,anger/0.jpg,anger,0.8",
        "1,surprise/1.jpg,surprise,0.9",
        "2,boredom/2.jpg,x,1",
    ]
    (tmp_path / "src" / "labels.csv").write_text("\n".join(lines))
    assert pack_source("affectnet", tmp_path / "src", tmp_path / "out", "partition=none") == 0
    assert emotions(tmp_path / "out") == {"0": "anger", "1": "surprise"}
    assert rejected(tmp_path / "out") == {"boredom/2.jpg": "its emotion 'x' is not one of the eight"}
    assert set(packed_sets(tmp_path / "out")["train"].schema.fields) == {"emotion"}


def test_what_cannot_be_is_refused(tmp_path, capsys):
    src = tmp_path / "src"
    write(src / "cats" / "1.jpg", 1)
    for words, message in (
        ([], "has no csv, no annotations and no folders anger, contempt"),
        (["numbers=roman"], "numbers=roman: type sorted (folder 0 is anger) or published"),
        (["classes=bored"], "classes=bored: bored is not a class"),
    ):
        assert pack_source("affectnet", src, tmp_path / "out", *words) == 2
        assert message in last_error(capsys)
    write(src / "anger" / "1.jpg", 1)
    for words, message in (
        (["crop=true"], "has no table with the boxes of faces; leave crop out"),
        (["partition=official"], "states no official part; type partition=none"),
    ):
        assert pack_source("affectnet", src, tmp_path / "out", *words) == 2
        assert message in last_error(capsys)
    (src / "list.csv").write_text("a,b\n1,2\n")
    assert pack_source("affectnet", src, tmp_path / "out") == 2
    assert "line 1: has no columns for path and emotion: subdirectory_filepath, expression" in last_error(
        capsys
    )
    assert not (tmp_path / "out").exists()
