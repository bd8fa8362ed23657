"""The walk below a source: links, hard links and helper folders never pack an image twice."""

import csv
import os
import shutil

import pytest

from data_shards.errors import UserError
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from data_shards.sources.walk import Walk
from launch.cli import main
from tests.support.image_folders import identity_folders


@pytest.fixture
def src(tmp_path):
    return identity_folders(tmp_path / "src", identities=3, images=2)


def unfit(src, name: str = "folder") -> dict[str, str]:
    return {sample.path: sample.unfit for sample in open_source(name, str(src)).samples() if sample.unfit}


def fit(src, name: str = "folder") -> list[str]:
    return sorted(sample.path for sample in open_source(name, str(src)).samples() if not sample.unfit)


PICTURES = [f"person_0{person}/p_{number}.jpg" for person in range(3) for number in range(2)]


def test_a_link_to_the_parent_packs_no_one_twice(src, tmp_path, capsys):
    (src / "person_01" / "all").symlink_to("..")
    (src / "person_02" / "disk").symlink_to("/")
    assert (
        main(["pack", "source=folder", f"src={src}", f"out={tmp_path / 'out'}", "holdout=0.4", "workers=1"])
        == 0
    )
    assert "rejected 2" in capsys.readouterr().out
    sets = [ShardSet.open(tmp_path / "out" / split) for split in ("train", "eval")]
    assert sum(map(len, sets)) == 6
    with open(tmp_path / "out" / "train" / "rejected.csv", newline="") as file:
        rows = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    why = "leads back to the folder of the source, or above it"
    assert rows == {"person_01/all": why, "person_02/disk": why}


@pytest.mark.parametrize("name", ["aaa", "zzz", "person_02/again"])
def test_a_link_to_another_person_is_left_out(src, name):
    (src / name).symlink_to(src / "person_01")
    assert unfit(src) == {name: "is a link to person_01, which has its own place"}
    assert fit(src) == PICTURES


def test_a_link_in_a_helper_folder_hides_no_image(src):
    (src / "@eaDir" / "z").mkdir(parents=True)
    shutil.copy(src / "person_00" / "p_0.jpg", src / "@eaDir" / "z" / "new.jpg")
    (src / "@eaDir" / "a").symlink_to("z")
    why = "a folder of some program"
    assert unfit(src) == {
        "@eaDir/a": f"is a link in @eaDir, {why}",
        "@eaDir/z/new.jpg": f"lies in @eaDir, {why}, not of people",
    }
    assert fit(src) == PICTURES


def test_an_image_under_two_names_is_packed_once(src, tmp_path):
    os.link(src / "person_00" / "p_0.jpg", src / "person_02" / "x.jpg")
    (src / "person_00" / "a.jpg").symlink_to("../person_01/p_1.jpg")
    (tmp_path / "one.jpg").write_bytes(b"1")
    (src / "person_00" / "one.jpg").symlink_to(tmp_path / "one.jpg")
    (src / "person_01" / "one.jpg").symlink_to(tmp_path / "one.jpg")
    assert unfit(src) == {
        "person_00/a.jpg": "is a link to person_01/p_1.jpg, which has its own place",
        "person_02/x.jpg": "is the same file as person_00/p_0.jpg",
        "person_01/one.jpg": "is the same file as person_00/one.jpg",
    }
    assert fit(src) == sorted([*PICTURES, "person_00/one.jpg"])


def test_images_on_another_disk_are_found_by_links_and_once(src, tmp_path):
    disk = identity_folders(tmp_path / "disk", identities=2, images=1)
    (disk / "person_00" / "loop").symlink_to(disk / "person_00")
    (disk / "person_01" / "home").symlink_to(src / "person_01")
    (src / "far_0").symlink_to(disk / "person_00")
    (src / "far_1").symlink_to(disk / "person_01")
    (src / "far_2").symlink_to(disk / "person_01")
    # Reading it fails and is reported.
    (src / "person_02" / "p_9.jpg").symlink_to(disk / "person_00" / "none.jpg")
    assert unfit(src) == {
        "far_0/loop": "is the same folder as far_0",
        "far_1/home": "is a link to person_01, which has its own place",
        "far_2": "is the same folder as far_1",
    }
    assert fit(src) == sorted([*PICTURES, "far_0/p_0.jpg", "far_1/p_0.jpg", "person_02/p_9.jpg"])


def test_links_into_the_store_of_a_program_are_images(src):
    """As git-annex keeps them."""
    store = src / ".git" / "objects"
    store.mkdir(parents=True)
    shutil.move(src / "person_00" / "p_0.jpg", store / "aa")
    (src / "person_00" / "p_0.jpg").symlink_to("../.git/objects/aa")
    (store / "loop").symlink_to(store)
    assert fit(src) == PICTURES
    assert set(unfit(src)) == {".git/objects/aa", ".git/objects/loop"}


def test_a_list_reaches_no_image_by_another_path(tmp_path):
    for person in ("n000001", "n000002"):
        (tmp_path / "train" / person).mkdir(parents=True)
        (tmp_path / "train" / person / "1.jpg").write_bytes(person.encode())
    (tmp_path / "train" / "n000003").symlink_to("n000001")
    (tmp_path / "secret.jpg").write_bytes(b"1")
    paths = [
        "n000001/1.jpg",
        "n000002/../n000001/1.jpg",
        "n000003/1.jpg",
        "../secret.jpg",
        str(tmp_path / "secret.jpg"),
    ]
    (tmp_path / "train_list.txt").write_text("\n".join(paths))
    assert fit(tmp_path, "vggface2") == ["n000001/1.jpg"]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["lfw-deepfunneled/Ann_Lee", "lfw-deepfunneled/Bo_Ek"], "LFW as unpacked: type source=lfw"),
        (["train/n000001", "test/n000002"], "VGGFace2: type source=vggface2 split=test"),
        (["train/ann", "train/bo", "Test/ann"], "would be taken for people: type src=.*/Test"),
        (["train/ann", "test/bo", "meta"], "would be taken for people: type src=.*/test"),
        (["faces/ann", "faces/bo"], "would be taken for people: type src=.*/faces"),
        (
            ["ann"],
            "all its images are in one folder, 'ann': give the folder that has one folder for each identity",
        ),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, folders, words, capsys):
    src = tmp_path / "src"
    for folder in folders:
        (src / folder).mkdir(parents=True)
        (src / folder / "1.jpg").write_bytes(folder.encode())
    assert main(["pack", "source=folder", f"src={src}", f"out={tmp_path / 'out'}"]) == 2
    with pytest.raises(UserError, match=words):
        list(open_source("folder", str(src)).samples())
    assert not (tmp_path / "out").exists()


def test_an_image_named_like_a_helper_folder_is_one_person_s(tmp_path):
    for name in ("ann/@eaDir", "ann/b.jpg", "bo/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "bo/link.jpg").symlink_to("../ann/@eaDir")
    walk = Walk(str(tmp_path))
    found = {one.path: one.unfit for folder in ("ann", "bo") for one in walk.below(folder)}
    assert [path for path, unfit in found.items() if not unfit] == ["ann/@eaDir", "ann/b.jpg", "bo/c.jpg"]
    assert found["bo/link.jpg"] == "is a link to ann/@eaDir, which has its own place"
