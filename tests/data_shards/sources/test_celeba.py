"""CelebA: lists as published, attributes as bits, identities, official parts; damaged lists are refused."""

from pathlib import Path

import numpy as np
import pytest

from launch.cli import main
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import labels_by_key, last_error, manifest_of, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo

NAMES = ("Bald", "Eyeglasses", "Male", "Smiling", "Young")
COUNT = 24


def bits_of(number: int) -> list[int]:
    return [(number >> bit) & 1 for bit in range(len(NAMES))]


def write_celeba(root: Path, *, folder: str = "Img/img_align_celeba", people: int = 8) -> Path:
    """Pictures 000001 ... and the lists as published; person n has the pictures n, n + people, ..."""
    for part in (folder, "Anno", "Eval"):
        (root / part).mkdir(parents=True)
    rows, persons, parts = [], [], []
    for number in range(1, COUNT + 1):
        name = f"{number:06d}.jpg"
        (root / folder / name).write_bytes(jpeg(photo(number, 24, 32)))
        rows.append(f"{name} " + " ".join(f"{2 * bit - 1:2d}" for bit in bits_of(number)))
        persons.append(f"{name} {100 + number % people}")
        parts.append(f"{name} {min(number % people // 3, 2)}")
    text = "\r\n".join([str(COUNT), " ".join(NAMES) + " ", *rows, ""])
    (root / "Anno" / "list_attr_celeba.txt").write_text(text, newline="")
    (root / "Anno" / "identity_CelebA.txt").write_text("\n".join([*persons, ""]))
    (root / "Eval" / "list_eval_partition.txt").write_text("\r\n".join([*parts, ""]), newline="")
    return root


@pytest.fixture
def celeba(tmp_path):
    return write_celeba(tmp_path / "celeba")


def expected(number: int) -> dict[str, object]:
    bits = bits_of(number)
    return {"attributes": bits, "gender": 1 - bits[2], "young": bits[4]}


def test_official_parts_carry_all_labels_and_divide_no_person(celeba, tmp_path):
    assert pack_source("celeba", celeba, tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 9, "val": 9, "test": 6}
    found: dict[str, dict[str, object]] = {}
    people: set[str] = set()
    for shards in sets.values():
        assert shards.schema.fields["attributes"].names == NAMES
        assert shards.schema.fields["gender"].names == ("man", "woman")
        assert shards.schema.fields["young"].names == ("old", "young")
        assert not people & set(shards.identity_names())
        people |= set(shards.identity_names())
        found |= labels_by_key(shards)
    assert people == {str(100 + number) for number in range(8)}
    manifest = manifest_of(tmp_path / "out" / "val")
    assert (manifest["source_split"], manifest["official"]) == ("val", 9)
    for number in range(1, COUNT + 1):
        labels = found[f"{number:06d}"]
        assert labels.pop("identity") >= 0
        assert labels == expected(number)
    assert main(["check", str(tmp_path / "out"), "workers=1"]) == 0


def test_partition_none_divides_by_person(celeba, tmp_path, capsys):
    assert pack_source("celeba", celeba, tmp_path / "x", "holdout=0.3") == 2
    assert "holdout=0.3: source=celeba has official splits here (test, train, val)" in (
        error := last_error(capsys)
    )
    assert "leave holdout out or type partition=none" in error
    assert pack_source("celeba", celeba, tmp_path / "out", "holdout=0.4", "seed=1", "partition=none") == 0
    train, held_out = (
        set(packed_sets(tmp_path / "out")[part].identity_names()) for part in ("train", "eval")
    )
    assert len(train | held_out) == len(train) + len(held_out) == 8
    assert manifest_of(tmp_path / "out" / "eval")["options"] == {"images": "", "partition": "none"}
    assert "official" not in manifest_of(tmp_path / "out" / "eval")


def test_without_identities_and_partition_each_picture_is_of_an_unknown_person(celeba, tmp_path, capsys):
    (celeba / "Anno" / "identity_CelebA.txt").unlink()
    (celeba / "Eval" / "list_eval_partition.txt").unlink()
    assert pack_source("celeba", celeba, tmp_path / "x", "partition=official") == 2
    assert "has no Eval/list_eval_partition.txt; add it or type none" in last_error(capsys)
    assert pack_source("celeba", celeba, tmp_path / "out", "holdout=0.3") == 0
    sets = packed_sets(tmp_path / "out")
    assert set(sets) == {"train", "eval"}
    assert sum(map(len, sets.values())) == COUNT
    assert all((shards.labels["identity"] == -1).all() for shards in sets.values())
    assert sets["train"].schema.cls == "gender"


def test_lists_as_csv_and_pictures_as_png_in_a_folder_twice(celeba, tmp_path):
    import cv2

    for part, name in (("Anno", "list_attr_celeba"), ("Eval", "list_eval_partition")):
        lines = (celeba / part / f"{name}.txt").read_text().split("\n")
        header = ",".join(["image_id", *NAMES]) if name == "list_attr_celeba" else "image_id,partition"
        rows = [",".join(line.split()) for line in lines[2 if part == "Anno" else 0 :] if line]
        (celeba / f"{name}.csv").write_text("\n".join([header, *rows]))
        (celeba / part / f"{name}.txt").unlink()
    inner = celeba / "img_align_celeba" / "img_align_celeba"
    inner.mkdir(parents=True)
    for number in (3, 20):
        cv2.imwrite(str(inner / f"{number:06d}.png"), photo(number, 20, 20))
    assert pack_source("celeba", celeba, tmp_path / "out") == 0
    found = {}
    for shards in packed_sets(tmp_path / "out").values():
        found |= labels_by_key(shards)
    assert {key: labels["attributes"] for key, labels in found.items()} == {
        f"{number:06d}": bits_of(number) for number in (3, 20)
    }


@pytest.mark.parametrize(
    ("words", "folder"),
    [([], "aligned"), (["images=half"], "half"), (["images=wild"], "wild"), (["images=Img/mine"], "mine")],
)
def test_the_pictures_are_those_asked_for(celeba, tmp_path, words, folder):
    places = {
        "aligned": "img_align_celeba",
        "half": "img_align_celeba_half_12x16",
        "wild": "img_celeba",
        "mine": "mine",
    }
    for width, place in enumerate(places.values(), 30):
        (celeba / "Img" / place).mkdir(exist_ok=True)
        (celeba / "Img" / place / "000005.jpg").write_bytes(jpeg(photo(width, width, width)))
    assert pack_source("celeba", celeba, tmp_path / "out", *words) == 0
    widths = np.concatenate([shards.width for shards in packed_sets(tmp_path / "out").values()])
    assert 30 + list(places).index(folder) in widths
    assert len(widths) == (COUNT if folder == "aligned" else 1)


def test_whatever_lists_and_pictures_do_not_share_is_listed(celeba, tmp_path):
    pictures = celeba / "Img" / "img_align_celeba"
    (pictures / "000001.jpg").unlink()
    (pictures / "000777.jpg").write_bytes(jpeg(photo(0, 20, 20)))
    (pictures / "more").mkdir()
    (pictures / "more" / "000002.jpg").write_bytes(jpeg(photo(1, 20, 20)))
    partition = celeba / "Eval" / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("000003.jpg 1", "000888.jpg 1"))
    assert pack_source("celeba", celeba, tmp_path / "out") == 0
    both = "list_attr_celeba and list_eval_partition"
    assert rejected(tmp_path / "out") == {
        "Img/img_align_celeba/000001.jpg": f"is named in {both}, but there is no such picture",
        "Img/img_align_celeba/000888.jpg": "is named in list_eval_partition, but there is no such picture",
        "Img/img_align_celeba/000777.jpg": "has no row in list_attr_celeba",
        "Img/img_align_celeba/000003.jpg": "has no row in list_eval_partition",
        "Img/img_align_celeba/more/000002.jpg": "has the name of Img/img_align_celeba/000002.jpg",
    }
    assert sum(map(len, packed_sets(tmp_path / "out").values())) == COUNT - 2


DAMAGE = {
    "count": (
        "Anno/list_attr_celeba.txt",
        ("24\n", "25\n"),
        "its first line says 25 pictures, but it lists 24",
    ),
    "no count": ("Anno/list_attr_celeba.txt", ("24\n", ""), "line 1: is not the number of pictures"),
    "no names": ("Anno/list_attr_celeba.txt", (" ".join(NAMES) + " \n", ""), "has no line with the names"),
    "cut": (
        "Anno/list_attr_celeba.txt",
        ("-1 -1  1  1\n", "-1\n"),
        "has 2 values for 5 attributes; restore the file",
    ),
    "value": (
        "Anno/list_attr_celeba.txt",
        ("000004.jpg -1", "000004.jpg  7"),
        "line 6: 7 is not -1 or 1; correct it",
    ),
    "twice": ("Anno/list_attr_celeba.txt", ("000004.jpg", "000003.jpg"), "line 6: names 000003.jpg again"),
    "part": (
        "Eval/list_eval_partition.txt",
        ("000004.jpg 1", "000004.jpg 3"),
        "line 4: is not the name of a picture",
    ),
    "person": (
        "Anno/identity_CelebA.txt",
        ("000004.jpg 104", "000004.jpg"),
        "line 4: is not the name of a picture",
    ),
    "divided": ("Eval/list_eval_partition.txt", ("000004.jpg 1", "000004.jpg 0"), "is also in split="),
}


@pytest.mark.parametrize(("path", "change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_list_is_refused_in_one_line(celeba, tmp_path, capsys, path, change, message):
    text = (celeba / path).read_text()
    assert change[0] in text
    (celeba / path).write_text(text.replace(*change))
    assert pack_source("celeba", celeba, tmp_path / "out") == 2
    error = last_error(capsys)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_other_folders_are_refused(celeba, tmp_path, capsys):
    for words, message in (
        (["images=hologram"], "images=hologram: "),
        (["images=wild"], "has no folder img_celeba, nor one in Img"),
        (["partition=some"], "partition=some: type auto, official or none"),
    ):
        assert pack_source("celeba", celeba, tmp_path / "out", *words) == 2
        assert message in last_error(capsys)
    for picture in (celeba / "Img" / "img_align_celeba").iterdir():
        picture.rename(picture.with_name(f"x{picture.name}"))
    assert pack_source("celeba", celeba, tmp_path / "out") == 2
    assert "holds none of the 24 pictures of list_attr_celeba" in last_error(capsys)
    (celeba / "Anno" / "list_attr_celeba.txt").unlink()
    assert pack_source("celeba", celeba, tmp_path / "out") == 2
    assert "has no list_attr_celeba.txt, nor Anno/list_attr_celeba.txt; add it" in last_error(capsys)


@needs_real
def test_real_celeba_at_half_size(tmp_path):
    assert pack_source("celeba", REAL / "celeba", tmp_path / "out", "images=half") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert len(shards) == 300
    assert shards.labels["attributes"].shape == (300, 40)
    male = shards.schema.fields["attributes"].names.index("Male")
    assert (shards.labels["gender"] == 1 - shards.labels["attributes"][:, male]).all()
    assert len(rejected(tmp_path / "out")) == 50
