"""Class folders: a label with names and numbers, never a person or a group."""

from pathlib import Path

import numpy as np

from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main
from tests.support.image_folders import identity_folders


def pack(src: Path, out: Path, *words: str) -> int:
    return main(["pack", "source=classes", f"src={src}", f"out={out}", "workers=1", *words])


def classes_of(shards: ShardSet) -> dict[str, int]:
    """{path: class}, by the names of the identities, which are the paths."""
    return dict(zip(shards.identity_names(), shards.labels["class"].tolist(), strict=True))


def test_images_of_a_class_are_in_all_sets_and_none_is_in_two(tmp_path):
    src = identity_folders(tmp_path / "src", identities=3, images=20, side=16)
    (src / "stray.jpg").write_bytes(b"x")
    assert pack(src, tmp_path / "out", "holdout=0.3", "name=pets") == 0
    sets = {part: ShardSet.open(tmp_path / "out" / part) for part in ("train", "eval")}
    found = {part: classes_of(shards) for part, shards in sets.items()}
    assert sum(map(len, found.values())) == len(found["train"] | found["eval"]) == 60
    assert "stray.jpg,lies beside the class folders" in (tmp_path / "out/train/rejected.csv").read_text()
    for part, shards in sets.items():
        assert shards.schema.fields["class"].names == ("person_00", "person_01", "person_02")
        assert shards.schema.cls == "class"
        assert set(found[part].values()) == {0, 1, 2}
        assert all(path.startswith(f"person_0{number}/") for path, number in found[part].items())
        assert (np.diff(shards.labels["class"]) != 0).sum() > 5  # shuffled, not class after class


def test_exact_shares_hold_within_every_class(tmp_path, capsys):
    src = identity_folders(tmp_path / "src", identities=3, images=20, side=16)
    (src / "person_02" / "p_0.jpg").unlink()
    words = ["holdout=0.25", "val=0.1", "holdout.exact=true"]
    assert pack(src, tmp_path / "out", *words) == 0
    for part, counts in (("eval", [5, 5, 5]), ("val", [2, 2, 2]), ("train", [13, 13, 12])):
        shards = ShardSet.open(tmp_path / "out" / part)
        assert np.bincount(shards.labels["class"]).tolist() == counts
        assert shards.manifest["cut"].startswith("of each class")
    assert pack(src, tmp_path / "out", *words) == 0
    assert capsys.readouterr().out.count("is there already") == 3
    assert pack(src, tmp_path / "few", "holdout=0.01", "holdout.exact=true") == 2
    assert "eval is empty, no class has enough samples" in capsys.readouterr().err
    assert pack(src, tmp_path / "few", "holdout.exact=true") == 2
    assert "holdout.exact=true divides nothing: type holdout= or val= beside it" in capsys.readouterr().err
    people = ["pack", "source=folder", f"src={src}", f"out={tmp_path / 'few'}", "holdout=0.3"]
    assert main([*people, "holdout.exact=true"]) == 2
    assert "holdout.exact=true: the source states no class; leave it out or" in capsys.readouterr().err


def test_no_image_moves_when_others_leave(tmp_path):
    src = identity_folders(tmp_path / "src", identities=2, images=20, side=16)
    assert pack(src, tmp_path / "all", "holdout=0.3") == 0
    for number in (0, 3, 4):
        (src / "person_00" / f"p_{number}.jpg").unlink()
    assert pack(src, tmp_path / "some", "holdout=0.3") == 0
    for part in ("train", "eval"):
        before, after = (classes_of(ShardSet.open(tmp_path / which / part)) for which in ("all", "some"))
        gone = {f"person_00/p_{number}.jpg" for number in (0, 3, 4)}
        assert after == {path: number for path, number in before.items() if path not in gone}


def test_official_splits_are_sets_with_the_same_numbers(tmp_path):
    for part, people in (("train", 3), ("test", 2)):
        identity_folders(tmp_path / "src" / part, identities=people, images=2 if part == "train" else 1)
    assert pack(tmp_path / "src", tmp_path / "out") == 0
    sets = {part: ShardSet.open(tmp_path / "out" / part) for part in ("train", "test")}
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 6, "test": 2}
    for part, shards in sets.items():
        assert len(shards.schema.fields["class"].names) == 3
        assert all(
            path.startswith(f"{part}/person_0{number}/") for path, number in classes_of(shards).items()
        )
    assert main(["check", str(tmp_path / "out"), "workers=1"]) == 0


def test_a_folder_of_one_class_is_refused(tmp_path, capsys):
    identity_folders(tmp_path / "src", identities=1, images=2)
    assert pack(tmp_path / "src", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "holds only one class; give the folder that has one folder for each class" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
