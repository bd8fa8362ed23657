"""Whom a run was trained on: compared across sets by name and by image, on the rows that are judged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.files import FileError
from data_shards.shard_format.people import normalised
from data_shards.shard_format.shard_set import ShardSet
from hpc.data import known_people
from hpc.data.known_people import people_of, shared
from launch.cli import main
from tests.support.judged import judged_run
from tests.support.sets import write_folders

TRAINED = ("Ann_Lee", "José_Núñez", "Bo_Ek", "s1")
STRANGERS = ("Cy_Ray", "Di_Oz", "Ed_Yi")


def people(folder: Path, names: tuple[str, ...], *, first: int = 0) -> Path:
    """A folder of these people, four images each; `first`: of the patterns, so that images differ."""
    source = write_folders(folder.with_name(f".{folder.name}"), identities=first + len(names), each=4)
    for number, name in enumerate(names):
        shutil.copytree(source / f"person{first + number:03d}", folder / name)
        for path in (folder / name).iterdir():
            path.rename(path.with_name(f"{name}_{path.stem[-4:]}.jpg"))
    return folder


def packed(source: Path, out: Path, *words: str, kind: str = "folder") -> ShardSet:
    assert main(["pack", f"source={kind}", f"src={source}", f"out={out}", "workers=1", *words]) == 0
    return ShardSet.open(out / "train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> ShardSet:
    root = tmp_path_factory.mktemp("trained")
    return packed(people(root / "lfw_train_112", TRAINED), root / "shards")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> ShardSet:
    """Another set under another name, with other images of some of the same people, written otherwise."""
    root = tmp_path_factory.mktemp("whole")
    names = ("ann lee", "JOSE\u0301 NU\u0301N\u0303EZ", "s1", *STRANGERS)
    return packed(people(root / "lfw", names, first=10), root / "shards")


def test_people_are_known_by_name_across_sets(trained, whole):
    assert shared(people_of(trained), whole) == ["JOSE\u0301 NU\u0301N\u0303EZ", "ann lee"]  # s1: a number
    strangers = np.flatnonzero(
        np.isin(whole.labels["identity"], [whole.identity_names().index(name) for name in STRANGERS])
    )
    assert shared(people_of(trained), whole, strangers) == []


def test_numbers_count_within_one_data_set(trained, tmp_path):
    same = packed(people(tmp_path / "other", ("s1", "s2"), first=20), tmp_path / "a", "name=lfw_train_112")
    assert shared(people_of(trained), same) == ["s1"]


def test_the_same_image_under_another_name_is_known(trained, tmp_path):
    renamed = packed(people(tmp_path / "x", ("q7", "q8"), first=0), tmp_path / "shards")
    assert shared(people_of(trained), renamed) == ["q7", "q8"]
    anew = packed(people(tmp_path / "y", ("q7", "q8"), first=0), tmp_path / "small", "size=32")
    assert shared(people_of(trained), anew) == []  # encoded anew: docs/data.md says so


def test_names_are_compared_by_what_they_say():
    assert normalised("José_Núñez") == normalised("JOSE\u0301  nu\u0301n\u0303ez") == "josé núñez"
    assert normalised("J.R._Smith") == normalised("j r smith")
    assert normalised("Ann1") != normalised("Ann2")


def test_it_is_kept_in_the_run_and_damage_is_refused(trained, tmp_path):
    known = people_of(trained)
    known_people.write(tmp_path, known)
    found = known_people.read(tmp_path, "/gone")
    assert found is not None
    assert (found.set, found.source) == ("lfw_train_112", "folder")
    np.testing.assert_array_equal(found.names, known.names)
    np.testing.assert_array_equal(found.images, known.images)
    assert (tmp_path / "trained_on.bin").stat().st_size == 8 * (4 + 16)
    data = bytearray((tmp_path / "trained_on.bin").read_bytes())
    data[9] ^= 4
    (tmp_path / "trained_on.bin").write_bytes(data)
    with pytest.raises(FileError, match=r"trained_on.bin is damaged.*delete .*trained_on.json"):
        known_people.read(tmp_path, "/gone")
    (tmp_path / "trained_on.json").write_text('{"set": 3}')
    with pytest.raises(FileError, match=r"trained_on.json: set: 3 is not text"):
        known_people.read(tmp_path, "/gone")
    (tmp_path / "trained_on.json").unlink()
    assert known_people.read(tmp_path, "/gone") is None
    assert len(known_people.read(tmp_path, str(trained.folder)).names) == 4


def test_evaluate_judges_the_listed_rows(trained, whole, tmp_path, capsys):
    run = judged_run(tmp_path / "run", tmp_path)  # its own sets lie nowhere
    known_people.write(run, people_of(trained))
    words = ["evaluate", str(run), f"data={whole.folder}", "bootstrap=0"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "2 of the 6 people to be judged are of the training" in error
    assert "overlap=allow" in error
    harmless, other = tmp_path / "harmless.txt", tmp_path / "other.txt"
    harmless.write_text("2\nCy_Ray 0 1\nDi_Oz 0 1\nCy_Ray 0 Ed_Yi 1\nDi_Oz 1 Ed_Yi 2\n")
    other.write_text("1\nCy_Ray 0 1\nCy_Ray 0 s1 1\n")
    assert main([*words, f"pairs={harmless}"]) == 0
    report = json.loads((run / "evaluations" / "lfw-train-harmless" / "report.json").read_text())
    assert report["people_of_training"] == 0
    assert main([*words, "overlap=allow"]) == 0
    assert "note: 2 of these people are in the training set" in capsys.readouterr().out
    for name in ("trained_on.json", "trained_on.bin"):
        (run / name).unlink()
    assert main([*words, f"pairs={other}"]) == 0
    assert "it is not known whom this run was trained on" in capsys.readouterr().out


def test_submit_refuses_sets_that_share_people(trained, whole, tmp_path, capsys):
    words = ["submit", "task=siamese", f"runs={tmp_path / 'runs'}", "name=r", "prepare=true", "batch=8"]
    words += [f"data.train={trained.folder}", f"data.eval={whole.folder}", "data.size=32"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "data.eval=" in error
    assert "holds 2 people of data.train" in error
    assert "data.allow_shared=true" in error
    assert not (tmp_path / "runs").exists()
    assert main([*words, "data.allow_shared=true"]) == 0
    for role, shards in ((known_people.TRAINED, trained), (known_people.CHOSEN, whole)):
        found = known_people.read(tmp_path / "runs" / "r", "/gone", role=role)
        assert found is not None
        np.testing.assert_array_equal(found.names, people_of(shards).names)


def test_a_stream_is_compared_where_it_can_be(trained, whole, tmp_path, capsys):
    words = ["submit", "task=siamese", f"runs={tmp_path / 'runs'}", "prepare=true", "batch=8", "data.size=32"]
    words += [f"data.eval={whole.folder}", "data.stream=true"]
    assert main([*words, "name=a", f"data.train={trained.folder}"]) == 2
    assert "holds 2 people of data.train" in capsys.readouterr().err
    assert main([*words, "name=b", f"data.train=pipe:cat {trained.folder}/train-000000.tar"]) == 0
    assert (
        "is read as a stream: it cannot be checked whether people of data.val and data.eval are in it"
        in capsys.readouterr().err
    )


def test_val_and_eval_must_not_share_people_either(trained, whole):
    with pytest.raises(UserError, match=r"data.eval=.* holds 2 people of data.val"):
        known_people.refuse_shared({"val": trained, "eval": whole})
