"""My face against others: two folders, or a person of many; others by person, me picture by picture."""

from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.registry import open_source
from launch.cli import main
from tests.support.image_folders import REAL, identity_folders, needs_real
from tests.support.packed import last_error, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo


@pytest.fixture
def people(tmp_path) -> Path:
    return identity_folders(tmp_path / "people", identities=8, images=6, side=24)


def counts(out: Path) -> dict[str, list[int]]:
    """{part: [others, me]}"""
    return {
        part: np.bincount(shards.labels["own"], minlength=2).tolist()
        for part, shards in packed_sets(out).items()
    }


def test_one_person_against_the_rest(people, tmp_path):
    words = ["me=person_03", "holdout=0.4", "val=0.2", "holdout.exact=true"]
    assert pack_source("own_face", people, tmp_path / "out", *words) == 0
    sets = packed_sets(tmp_path / "out")
    assert sum(np.array(each) for each in counts(tmp_path / "out").values()).tolist() == [42, 6]
    assert all(me > 0 and others > 0 for others, me in counts(tmp_path / "out").values())
    persons = [set(shards.identity_names()) for shards in sets.values()]
    assert sum(map(len, persons)) == len(set.union(*persons)) == 7
    for shards in sets.values():
        assert shards.schema.fields["own"].names == ("others", "me")
        assert ((shards.labels["identity"] == -1) == (shards.labels["own"] == 1)).all()


def test_shares_that_leave_a_set_without_me_are_refused(people, tmp_path, capsys):
    seen = set()
    for seed in range(12):
        words = ["me=person_03", "holdout=0.3", f"seed={seed}"]
        status = pack_source("own_face", people, tmp_path / str(seed), *words)
        if status == 2 and "no me falls into eval" in (error := last_error(capsys)):
            assert "add holdout.exact=true, or type another seed= or larger shares" in error
        elif status == 0:
            assert min(map(min, counts(tmp_path / str(seed)).values())) > 0
        seen.add(status)
    assert seen == {0, 2}


def test_two_folders_anywhere(people, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for number, name in enumerate(("a.jfif", "b.jpg", "c.jpg")):
        (mine / name).write_bytes(jpeg(photo(900 + number, 24, 24)))
    (mine / "d.jpg").write_bytes(b"")
    places = [f"me={mine}", f"others={people}"]
    assert main(["pack", "source=own_face", f"out={tmp_path / 'two'}", "workers=1", *places]) == 0
    assert counts(tmp_path / "two") == {"train": [48, 3]}
    source = open_source("own_face", "", options={"me": str(mine), "others": str(people)})
    samples = {sample.path: sample for sample in source.samples()}
    assert len(samples) == 4 + 48
    assert samples["me/a.jfif"].identity == ""
    assert samples["others/person_01/p_2.jpg"][1:3] == ("person_01", "p_2")
    src = tmp_path / "src"
    src.mkdir()
    mine.rename(src / "me")
    people.rename(src / "others")
    assert pack_source("own_face", src, tmp_path / "out") == 0
    assert counts(tmp_path / "out") == {"train": [48, 3]}
    assert rejected(tmp_path / "out") == {"me/d.jpg": "empty file"}


def test_others_without_persons_are_shuffled(tmp_path):
    for number in range(6):
        folder = tmp_path / "src" / ("me" if number % 2 else "others")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(jpeg(photo(number, 24, 24)))
    source = open_source("own_face", str(tmp_path / "src"))
    assert not source.cluster
    assert {sample.identity for sample in source.samples()} == {""}
    assert pack_source("own_face", tmp_path / "src", tmp_path / "out") == 0
    assert counts(tmp_path / "out") == {"train": [3, 3]}


def test_wrong_folders_are_refused(people, tmp_path, capsys):
    for words, message in (
        ([], "me is not a folder; type me=FOLDER or the name of a person in it, such as person_00"),
        (["me=nobody"], "me=nobody: nobody is not a folder"),
        ([f"me={people}"], "others is not a folder; type others=FOLDER"),
        ([f"me={people}", f"others={people}/"], "is the folder of the others too; give two folders"),
    ):
        assert pack_source("own_face", people, tmp_path / "out", *words) == 2
        assert message in last_error(capsys)
    for folder in sorted(people.iterdir())[1:]:
        folder.rename(tmp_path / folder.name)
    assert pack_source("own_face", people, tmp_path / "out", "me=person_00") == 2
    assert "holds nobody else; type others=FOLDER" in last_error(capsys)


@needs_real
def test_a_real_person_against_the_rest(tmp_path):
    words = ["me=s3", "holdout=0.3", "holdout.exact=true"]
    assert pack_source("own_face", REAL / "orl_att", tmp_path / "out", *words) == 0
    assert counts(tmp_path / "out") == {"train": [130, 7], "eval": [60, 3]}
