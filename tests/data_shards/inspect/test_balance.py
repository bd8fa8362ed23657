"""Balanced parts: as many of each group, the same at every call, and lists that a run takes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.inspect.balance import balance
from data_shards.inspect.groups import crossed, group_of, named_group
from data_shards.sampling.rows import Rows
from data_shards.sampling.weighted import WeightedOrder
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main
from tests.support.planted import Shown, pack_planted

AGES = {0: 25.0, 1: 34.0, 2: -1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """60 angry, 24 happy and 12 sad images, 4 of each person, one of whom changes her mood; 4 unknown."""
    emotions = [0] * 60 + [1] * 24 + [2] * 12
    images = [
        Shown(
            place % 5,
            f"p{place // 4:02d}",
            labels=(emotion, AGES[place % 3], (place % 2, -1 if place < 8 else 1)),
        )
        for place, emotion in enumerate(emotions)
    ]
    images[3] = images[3]._replace(labels=(1, 25.0, (0, 0)))  # of p00, who is angry three times
    images += [Shown(3, labels=(-1, 30.0, (1, 1))) for _ in range(4)]
    return pack_planted(tmp_path_factory.mktemp("balance"), {"train": images}) / "train"


@pytest.fixture
def shards(folder) -> ShardSet:
    return ShardSet.open(folder)


def counted(shards: ShardSet, rows: np.ndarray) -> dict[int, int]:
    return dict(sorted(Counter(np.asarray(shards.labels["emotion"])[rows].tolist()).items()))


def test_every_group_has_as_many_images_as_the_smallest(shards):
    part = balance(shards, ["emotion"])
    assert part.names == ("angry", "happy", "sad")
    assert (part.before, part.after, part.unknown) == ([59, 25, 12], [12, 12, 12], 4)
    assert counted(shards, part.rows) == {0: 12, 1: 12, 2: 12}
    assert part.rows.tolist() == sorted(set(part.rows.tolist()))
    sums = np.bincount(part.codes[part.codes >= 0], part.weights[part.codes >= 0])
    assert sums == pytest.approx([12, 12, 12])
    assert set(part.weights[part.codes < 0].tolist()) == {0.0}


def test_a_larger_number_keeps_those_whom_a_smaller_one_has_chosen(shards):
    few, many = (set(balance(shards, ["emotion"], per_group=count).rows.tolist()) for count in (5, 9))
    other = set(balance(shards, ["emotion"], per_group=5, seed=1).rows.tolist())
    assert few < many
    assert len(few) == 15
    assert other != few
    assert set(balance(shards, ["emotion"], per_group=5).rows.tolist()) == few


def test_persons_are_chosen_whole_and_belong_to_the_group_of_most_of_their_images(shards):
    part = balance(shards, ["emotion"], identities=3)
    identity = np.asarray(shards.labels["identity"])[part.rows]
    assert part.after == [len(part.rows) - 24, 12, 12]
    assert [people for _, people in part.people] == [3, 3, 3]
    assert len(np.unique(identity)) == 9
    everyone = balance(
        shards, ["emotion"], identities=3, least=25
    )  # without the sad, 6 happy and 15 angry ones
    assert everyone.names == ("angry", "happy")
    assert everyone.left_out == {"sad": 12}
    all_six = balance(shards, ["emotion"], identities=6, least=25)
    p00 = shards.identity_names().index("p00")
    assert p00 not in np.asarray(shards.labels["identity"])[all_six.rows[part.codes[all_six.rows] == 1]]


def test_images_are_spread_over_the_chosen_persons(shards):
    part = balance(shards, ["emotion"], identities=3, per_group=7)
    identity = np.asarray(shards.labels["identity"])[part.rows]
    assert part.after == [7, 7, 7]
    assert set(Counter(identity.tolist()).values()) == {2, 3}


def test_groups_cross_and_ages_fall_into_bands(shards):
    part = balance(shards, ["emotion", "age"], least=3)
    assert part.names == tuple(
        f"{mood}, {band}" for mood in ("angry", "happy", "sad") for band in ("20-29", "30-39")
    )
    assert len(set(part.after)) == 1
    worn = named_group(shards, "worn.beard", key="by")
    assert worn.names == ("not beard", "beard")
    assert Counter(worn.codes.tolist()) == Counter(np.asarray(shards.labels["worn"])[:, 1].tolist())
    both = crossed([worn, named_group(shards, "emotion", key="by")])
    unknown = (worn.codes < 0) | (np.asarray(shards.labels["emotion"]) < 0)
    assert ((both.codes < 0) == unknown).all()
    for row in np.flatnonzero(~unknown).tolist():
        emotion = ("angry", "happy", "sad")[int(shards.labels["emotion"][row])]
        assert both.names[both.codes[row]] == f"{worn.names[worn.codes[row]]}, {emotion}"


def test_values_that_make_no_groups_make_none():
    numbers = np.arange(50)
    assert group_of("weight", Field("value", "i4"), numbers) is None
    assert group_of("weight", Field("value", "f4"), np.zeros(3, np.float32)) is None
    assert group_of("age", Field("value", "i4"), np.array([-1, 0, 2, 3, 70, 116])).codes.tolist() == [
        -1,
        0,
        0,
        1,
        8,
        8,
    ]


@pytest.mark.parametrize(
    ("by", "words", "message"),
    [
        (["hats"], {}, "by=hats: .* has no such label, only emotion, age, worn"),
        (["worn"], {}, "by=worn: `worn` holds several bits: type one of them, as by=worn.hat"),
        (["emotion.sad"], {}, "by=emotion.sad: its values make no groups"),
        (["emotion"], {"per_group": 13}, "per_group=13: the group `sad` has 12 images: type 12 or fewer"),
        (["emotion"], {"identities": 4}, "identities=4: the group `sad` has 3 persons: type 3 or fewer"),
        (["emotion"], {"least": 99}, "least=99: no group of .* has so many"),
    ],
)
def test_what_cannot_be_balanced_is_refused(shards, by, words, message):
    with pytest.raises(UserError, match=message):
        balance(shards, by, **words)


def test_the_lists_are_what_orders_take(folder, shards, tmp_path, capsys):
    words = ["balance", str(folder), "by=emotion", f"out={tmp_path / 'b'}"]
    assert main(words) == 0
    assert "sad" in capsys.readouterr().out
    content = json.loads((tmp_path / "b" / "balance.json").read_text())
    assert content["groups"]["sad"] == {"before": 12, "after": 12, "people_before": 3, "people_after": 3}
    rows = Rows(shards, f"@{tmp_path / 'b' / 'rows.csv'}")
    chosen = rows.ids(np.arange(len(rows)))
    assert chosen.tolist() == balance(shards, ["emotion"]).rows.tolist()
    order = WeightedOrder(shards, 0, f"@{tmp_path / 'b' / 'weights.csv'}")
    seen = np.asarray(shards.labels["emotion"])[order.slots(0, 3600).ids[:, 0]]
    assert np.bincount(seen).tolist() == pytest.approx([1200, 1200, 1200], abs=30)
    lines = (tmp_path / "b" / "rows.csv").read_text().splitlines()
    assert lines[1] == "row,weight,member,emotion"
    assert lines[2].split(",")[2] == shards.member(int(lines[2].split(",")[0])).removesuffix(".jpg")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(words) == 2
    assert "exists: remove it" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_persons_of_a_set_that_knows_nobody_are_refused(tmp_path, capsys):
    out = pack_planted(tmp_path, {"train": [Shown(number) for number in range(6)]})
    words = ["balance", str(out / "train"), "by=emotion", "identities=1", f"out={tmp_path / 'b'}"]
    assert main(words) == 2
    assert "knows nobody by more than one image: use per_group=N" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
