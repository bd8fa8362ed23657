"""Three splits: whole people, by a hash of each name alone, so that nobody moves when others come or go."""

import hashlib
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.inspect.check import check_set
from data_shards.pack.layout import fingerprint, group, split_identities, split_samples
from data_shards.shard_format.manifest import read_manifest
from data_shards.shard_format.people import GROUP, groups_of
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import Sample
from launch.cli import main
from tests.support.image_folders import tree
from tests.support.planted import Shown, pack_planted
from tests.support.sets import pack_set, write_folders

MANY = [f"person {number}" for number in range(2000)]


def places(names: list[str], *, holdout: float, val: float, seed: int = 0) -> dict[str, str]:
    parts = split_identities(names, holdout=holdout, val=val, split="train", seed=seed)
    return {name: part for part, members in parts for name in members}


@given(st.sets(st.integers(0, 1999), min_size=400), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_nobody_moves_when_others_come_or_go(chosen, seed):
    some = [MANY[number] for number in sorted(chosen)]
    everybody = places(MANY, holdout=0.1, val=0.1, seed=seed)
    assert places(some, holdout=0.1, val=0.1, seed=seed) == {name: everybody[name] for name in some}


def test_a_share_takes_people_from_train_only():
    base = places(MANY, holdout=0.1, val=0.1)
    for more in ({"holdout": 0.2, "val": 0.1}, {"holdout": 0.1, "val": 0.3}, {"holdout": 0.1, "val": 0.0}):
        moved = {(base[name], part) for name, part in places(MANY, **more).items() if base[name] != part}
        assert len(moved) == 1
        assert any("train" in pair for pair in moved)


def test_shares_are_met_about_and_seeds_differ():
    first, second = (places(MANY, holdout=0.1, val=0.15, seed=seed) for seed in (0, 1))
    counts = {part: list(first.values()).count(part) for part in ("train", "val", "eval")}
    assert counts["train"] > 1400
    assert 150 < counts["eval"] < 250
    assert 230 < counts["val"] < 370
    assert first != second


def test_an_accent_is_the_same_however_a_disk_composes_it():
    composed = places(["José", *MANY], holdout=0.4, val=0.4)["José"]
    assert places(["Jose\u0301", *MANY], holdout=0.4, val=0.4)["Jose\u0301"] == composed


def test_pack_writes_three_sets_that_share_nobody(tmp_path, capsys):
    source = write_folders(tmp_path / "people", identities=30, each=2)
    words = ["pack", "source=folder", f"src={source}", f"out={tmp_path / 'shards'}", "workers=1"]
    cut = ["holdout=0.2", "val=0.2"]
    assert main([*words, *cut]) == 0
    sets = {part: ShardSet.open(tmp_path / "shards" / part) for part in ("train", "val", "eval")}
    people = {part: set(shards.identity_names()) for part, shards in sets.items()}
    assert sum(map(len, people.values())) == len(set.union(*people.values())) == 30
    assert all(people.values())
    manifest, _ = read_manifest(tmp_path / "shards" / "val")
    assert (manifest["holdout"], manifest["val"], manifest["split"]) == (0.2, 0.2, "val")
    assert "hash" in manifest["cut"]
    before = tree(tmp_path / "shards")
    capsys.readouterr()
    assert main([*words, *cut]) == 0
    assert capsys.readouterr().out.count("is there already") == 3
    for other in (["holdout=0.2"], ["val=0.2"], []):  # whoever was set aside would be trained on
        assert main([*words, *other]) == 2
        assert "remove " in capsys.readouterr().err
    assert tree(tmp_path / "shards") == before


def test_a_set_without_val_is_the_same_as_ever(tmp_path):
    """Its request must not change: sets that lie on disks are recognised by it."""
    manifest, _ = read_manifest(pack_set(tmp_path, identities=3, each=2, holdout=0.0) / "train")
    assert not {"val", "cut"} & manifest.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"holdout": 0.01, "val": 0.0},
            r"holdout=0.01: none of 6 .* into eval.*; type seed=\d+, or a larger",
        ),
        ({"holdout": 0.5, "val": 0.001}, r"val=0.001: none of 6 identities falls into val"),
    ],
)
def test_an_empty_split_is_refused_with_what_to_type(words, message):
    names = [f"q{number}" for number in range(6)]
    with pytest.raises(UserError, match=message) as refused:
        split_identities(names, split="train", seed=0, **words)
    if "seed=" in str(refused.value):
        seed = int(str(refused.value).partition("seed=")[2].partition(",")[0])
        assert all(part for _, part in split_identities(names, split="train", seed=seed, **words))


def sample(path: str, identity: str, group: str = "", split: str = "") -> Sample:
    return Sample(path, identity, path, group=group, split=split)


def divided(samples: list[Sample], *, holdout: float = 0.0, val: float = 0.0) -> dict[str, str]:
    """{path: split}"""
    identities, _ = group(samples)
    divide = partial(split_identities, holdout=holdout, val=val, split="train", seed=0)
    parts = split_samples(identities, divide, seed=0)
    return {one.path: part for part, members in parts for each in members.values() for one in each}


def test_a_group_is_in_one_split_whoever_is_in_it():
    """Clips with several people, who are in several clips."""
    samples = [sample(f"{n}", f"person{n % 50}", f"clip{n // 7}") for n in range(2000)]
    parts = divided(samples, holdout=0.3, val=0.2)
    assert parts.keys() == {one.path for one in samples}
    by_clip = {one.group: parts[one.path] for one in samples}
    assert all(parts[one.path] == by_clip[one.group] for one in samples)
    assert set(by_clip.values()) == {"train", "val", "eval"}
    some = samples[::3]  # nothing moves when other samples leave
    assert divided(some, holdout=0.3, val=0.2) == {one.path: parts[one.path] for one in some}


def test_people_are_divided_as_before_there_were_groups():
    samples = [sample(f"{name}/{number}", name) for name in MANY[:300] for number in range(2)]
    divide = partial(split_identities, holdout=0.2, val=0.1, split="train", seed=3)
    parts = split_samples(group(samples)[0], divide, seed=3)
    before = split_identities(sorted(MANY[:300]), holdout=0.2, val=0.1, split="train", seed=3)
    assert [(part, list(members)) for part, members in parts] == before


def test_official_splits_win_and_the_rest_is_divided():
    samples = [sample(f"{n}", MANY[n], split="test" if n < 20 else "") for n in range(200)]
    parts = divided(samples, holdout=0.3)
    assert {parts[one.path] for one in samples[:20]} == {"test"}
    assert {parts[one.path] for one in samples[20:]} == {"train", "eval"}
    only = divided(
        [one._replace(split="test" if n % 2 else "train") for n, one in enumerate(samples)], val=0.5
    )
    assert set(only.values()) == {"train", "test"}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            {"split": "test"},
            "split='test' of b: its group 'clip' is also in split='train' .a.; correct the source",
        ),
        ({"split": ""}, "split='' of b: its group 'clip' is also in split='train'"),
        (
            {"split": "../up", "group": "other"},
            "split='../up' of b: is not a plain name; type one",
        ),
    ],
)
def test_a_group_of_two_official_splits_is_refused(second, words):
    first = sample("a", "ann", "clip", "train")
    with pytest.raises(UserError, match=words):
        divided([first, first._replace(path="b", **second)])


def test_group_and_split_count_in_the_fingerprint_and_their_absence_does_not():
    def digest(one: Sample) -> str:
        return fingerprint({"ann": [one]}, [], {})

    plain = sample("a", "ann")
    assert len({digest(plain), digest(plain._replace(group="x")), digest(plain._replace(split="x"))}) == 3
    facts = "[('a', 'ann', 'a', 0, (), None, '')]"
    assert digest(plain) == hashlib.sha256(b"{}" + facts.encode() + b"[]").hexdigest()


@pytest.mark.parametrize("words", [["val=1"], ["val=-0.1"], ["val=0.5", "holdout=0.5"], ["val=x"]])
def test_impossible_shares_are_refused(tmp_path, words, capsys):
    assert main(["pack", "source=procedural", f"out={tmp_path / 'out'}", "identities=4", *words]) == 2
    assert "val=" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_packing_says_where_a_held_out_part_has_few_people(tmp_path, capsys):
    images = write_folders(tmp_path / "pictures", identities=30, each=2)
    words = ["pack", "source=folder", f"src={images}", "workers=1", "holdout=0.5"]
    assert main([*words, f"out={tmp_path / 'many'}"]) == 0
    assert "only" not in capsys.readouterr().out
    assert main([*words, "val=0.1", f"out={tmp_path / 'few'}"]) == 0
    said = capsys.readouterr().out
    assert said.count("people: figures and thresholds from so few are rough; raise val= or take another") == 1


def test_a_set_states_the_groups_of_its_samples_and_one_without_groups_does_not(tmp_path):
    images = [Shown(number, group=f"clip {number // 2}" if number < 6 else "") for number in range(8)]
    shards = ShardSet.open(pack_planted(tmp_path / "clips", {"train": images}) / "train")
    column = groups_of(shards)
    by_place = {int(shards.member(row).rpartition("/i")[2][:4]): column[row] for row in range(8)}
    assert by_place[0] == by_place[1] != by_place[2] == by_place[3]
    assert (by_place[6], by_place[7]) == (0, 0)
    assert 0 not in [by_place[number] for number in range(6)]
    assert list(check_set(shards.folder, workers=1)) == []
    plain = pack_planted(tmp_path / "plain", {"train": [image._replace(group="") for image in images]})
    assert groups_of(ShardSet.open(plain / "train")) is None
    assert not (plain / "train" / GROUP).exists()
    (shards.folder / GROUP).write_bytes((shards.folder / GROUP).read_bytes()[:-8] + bytes(8))
    with pytest.raises(UserError, match="its bytes are not those that the manifest says"):
        groups_of(ShardSet.open(shards.folder))
