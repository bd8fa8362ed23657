"""Rows of a set by expressions: which rows, which shards and identities, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sampling.order import GroupOrder, PlainOrder
from data_shards.sampling.rows import Rows
from tests.support.labelled_set import labelled, sets

EXPRESSIONS = {
    "set": lambda race, quality: race == race,
    "race==0": lambda race, quality: race == 0,
    "race!=0": lambda race, quality: (race != 0) & (race != -1),
    "race<2": lambda race, quality: (race < 2) & (race != -1),
    "race==-1": lambda race, quality: race == -1,
    "race>=1 and quality<0.5": lambda race, quality: (race >= 1) & (quality < 0.5),
    " race==1 or race==2 and quality > 1e-1": lambda race, quality: (
        (race == 1) | ((race == 2) & (quality > np.float32(0.1)))
    ),
    "(race==1 or race==2) and quality>.1": lambda race, quality: (
        ((race == 1) | (race == 2)) & (quality > np.float32(0.1))
    ),
}


@given(sets(), st.sampled_from(sorted(EXPRESSIONS)))
@settings(max_examples=60, deadline=None)
def test_rows_are_those_that_satisfy_the_expression(shards, text):
    race, quality = shards.labels["race"], shards.labels["quality"]
    wanted = np.flatnonzero(EXPRESSIONS[text](race, quality))
    if not len(wanted):
        with pytest.raises(UserError, match=r"data\.rows=.* matches none of the .* rows of /sets/train"):
            Rows(shards, text)
        return
    rows = Rows(shards, text)
    assert len(rows) == len(wanted)
    np.testing.assert_array_equal(rows.ids(np.arange(len(rows))), wanted)
    for found, start in (
        (rows.shard_start, shards.shard_start),
        (rows.identity_start, shards.identity_start),
    ):
        np.testing.assert_array_equal(found, np.searchsorted(wanted, start.astype(np.int64)))


@given(sets(), st.integers(0, 2**31), st.sampled_from([1, 30, 65_536]), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_epoch_of_a_part_is_a_permutation_of_its_rows(shards, seed, window, epoch):
    shards.labels["race"][0] = 0
    wanted = np.flatnonzero(shards.labels["race"] == 0)
    order = PlainOrder(Rows(shards, "race==0", number=3), seed, 2, window=window)
    assert order.epoch_slots == len(wanted)
    slots = order.slots(epoch * len(wanted), len(wanted))
    for column in slots.ids.T:
        np.testing.assert_array_equal(np.sort(column), wanted)
    assert (slots.sets == 3).all()


@given(sets(), st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([1, 30, 65_536]))
@settings(max_examples=40, deadline=None)
def test_groups_of_a_part_show_one_identity_and_visit_its_rows_once(shards, seed, group, window):
    shards.labels["race"][0] = 0
    wanted = np.flatnonzero(shards.labels["race"] == 0)
    order = GroupOrder(Rows(shards, "race==0"), seed, group, window=window)
    slots = order.slots(order.epoch_slots, order.epoch_slots)
    np.testing.assert_array_equal(np.sort(slots.ids[~slots.repeat, 0]), wanted)
    owner = shards.labels["identity"][slots.ids[:, 0]].reshape(-1, group)
    assert (owner == owner[:, :1]).all()


def test_a_set_of_several_chunks_has_the_same_rows(monkeypatch):
    monkeypatch.setattr("data_shards.sampling.rows._CHUNK", 128)
    monkeypatch.setattr("data_shards.sampling.block_sums._CHUNK", 2)
    age = np.random.default_rng(0).integers(0, 90, 1_001).astype(np.int32)
    rows = Rows(labelled([1_001], 3, {"age": age}), "age>=18")
    np.testing.assert_array_equal(rows.ids(np.arange(len(rows))), np.flatnonzero(age >= 18))


def test_a_rare_part_that_touches_nearly_every_shard_says_so():
    race = (np.arange(4_000) % 100 == 7).astype(np.int32)
    shards = labelled([4_000], 20, {"race": race, "half": np.arange(4_000) // 2_000})
    note = Rows(shards, "race==1").note
    assert note.startswith("data.rows=race==1: 40 of 4,000 rows, in 20 of 20 shards: nearly every shard")
    assert Rows(shards, "half==1").note == Rows(shards, "set").note == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a label field is missing at the end: write for example `race==0`"),
        ("race", "a comparison is missing at the end"),
        ("race==", "a number is missing at the end"),
        ("race=0", "`=` is not understood"),
        ("0==race", "a label field is missing before `0`"),
        ("race==x", "a number is missing before `x`"),
        ("race==0 and", "a label field is missing at the end"),
        ("and==0", "a label field is missing before `and`"),
        ("race(0)", r"a comparison is missing before `\(`"),
        ("(race==0", r"`\)` is missing"),
        ("race==0)", r"`\)` is one word too many"),
        ("race==0 race==1", "`race` is one word too many"),
        ("__import__('os')", r"`'` is not understood"),
        ("race==0;", "`;` is not understood"),
        ("rase==0", "/sets/train has no label `rase`: use one of identity, race, pose"),
        ("pose>0", "label `pose` is not one number a row: use one of "),
        (
            "race>7",
            r"matches none of the 6 rows of /sets/train \(race runs from 0 to 5\): use values that occur",
        ),
        ("(" * 300, "has 300 characters: use 200 or fewer"),
        ("race==\x1b[31m", "is not understood"),
    ],
)
def test_what_is_no_expression_of_the_set_is_refused(text, reason):
    shards = labelled([6], 1, {"race": np.arange(6), "pose": np.zeros((6, 3))})
    with pytest.raises(UserError, match=reason) as error:
        Rows(shards, text, key="data.mix")
    message = str(error.value)
    assert message.startswith("data.mix=")
    assert message.isprintable()


@given(st.text("race=<>!()0123456789.e-+ andorset_'\"\\\n", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_rows_or_refused_in_one_line(text):
    shards = labelled([6], 1, {"race": np.arange(6)})
    try:
        found = f"{len(Rows(shards, text))} rows"
    except UserError as error:
        found = str(error)
    assert found in {f"{count} rows" for count in range(1, 7)} or found.startswith("data.rows=")
    assert found.isprintable()
