"""Two domains in one set: layouts, the labels that name the sides, and what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from data_shards.sampling.rows import Rows
from tests.support.packed import last_error, manifest_of, pack_source, packed_sets
from tests.support.small_set import jpeg, photo


def fill(folder, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg(photo(first + number, 24, 24)))


@pytest.fixture
def domains(tmp_path):
    root = tmp_path / "src"
    fill(root / "trainA", 5)
    fill(root / "trainB", 3, 10)
    fill(root / "testA", 2, 20)
    fill(root / "testB", 2, 30)
    return root


def test_folders_of_the_authors_become_a_set_a_split(domains, tmp_path):
    assert pack_source("unpaired", domains, tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert {part: np.bincount(shards.labels["domain"]).tolist() for part, shards in sets.items()} == {
        "train": [5, 3],
        "test": [2, 2],
    }
    shards = sets["train"]
    assert shards.schema.cls == "domain"
    assert shards.schema.fields["domain"].names == ("a", "b")
    for row in range(len(shards)):
        assert ("trainA", "trainB")[shards.labels["domain"][row]] in shards.key(row).replace(
            "traina", "trainA"
        )


def test_the_sides_of_a_training_are_chosen_by_the_label(domains, tmp_path):
    assert pack_source("unpaired", domains, tmp_path / "out") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    for number in (0, 1):
        rows = Rows(shards, f"domain=={number}")
        assert (shards.labels["domain"][rows.ids(np.arange(len(rows)))] == number).all()


def test_any_two_folders_by_name(domains, tmp_path, capsys):
    words = ("a=testA", "b=trainB")
    assert pack_source("unpaired", domains, tmp_path / "out", *words) == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert np.bincount(shards.labels["domain"]).tolist() == [2, 3]
    assert manifest_of(tmp_path / "out" / "train")["options"] == {"a": "testA", "b": "trainB"}
    assert pack_source("unpaired", domains, tmp_path / "x", "a=testA", "b=none") == 2
    assert "b=none: " in (error := last_error(capsys))
    assert "has no such folder; type one of testA, testB, trainA, trainB" in error
    assert pack_source("unpaired", domains, tmp_path / "x", "a=testA", "b=testA") == 2
    assert "are one folder" in last_error(capsys)


def test_a_missing_or_an_empty_domain_is_refused(domains, tmp_path, capsys):
    shutil.rmtree(domains / "testB")
    assert pack_source("unpaired", domains, tmp_path / "out") == 2
    assert "not two domains of test: give trainA and trainB" in last_error(capsys)
    (domains / "testB").mkdir()
    assert pack_source("unpaired", domains, tmp_path / "out") == 2
    assert "testB, of domain b, holds no pictures; fill it" in last_error(capsys)
    fill(tmp_path / "people" / "ann", 2)
    assert pack_source("unpaired", tmp_path / "people", tmp_path / "out") == 2
    assert "holds ann, not two domains: give trainA and trainB, or A and B, or type" in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_a_single_grey_picture_and_a_cmyk_one_are_domains(tmp_path):
    root = tmp_path / "src"
    for name in ("A", "B"):
        (root / name).mkdir(parents=True)
    Image.fromarray(photo(1, 20, 20)[..., 0]).save(root / "A" / "grey.png")
    Image.fromarray(photo(2, 20, 20)).convert("CMYK").save(root / "B" / "ink.jpg")
    assert pack_source("unpaired", root, tmp_path / "out") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert sorted(shards.labels["domain"].tolist()) == [0, 1]
