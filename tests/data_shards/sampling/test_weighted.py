"""Weighted and balanced orders: shares at every prefix; equal weights are the plain order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sampling.order import PlainOrder
from data_shards.sampling.rows import Rows
from data_shards.sampling.weighted import BalancedOrder, WeightedOrder, cell_starts
from tests.support.labelled_set import assert_equal, labelled, sets

SEEDS = st.integers(0, 2**31)
WINDOWS = st.sampled_from([1, 30, 65_536])


def shares_of(shards, order):
    """What share of the slots each row should have, by plain floating point."""
    if isinstance(order, WeightedOrder):
        return shards.labels["quality"] / shards.labels["quality"].sum(dtype=np.float64)
    classes, inverse, counts = np.unique(shards.labels["class"], return_inverse=True, return_counts=True)
    return 1 / (len(classes) * counts[inverse])


@st.composite
def orders(draw):
    shards, seed, window = draw(sets()), draw(SEEDS), draw(WINDOWS)
    if draw(st.booleans()):
        return shards, WeightedOrder(shards, seed, "quality", window=window)
    return shards, BalancedOrder(shards, seed, "class", window=window)


@given(orders(), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_each_row_is_within_2_of_its_share_at_any_prefix_of_an_epoch(drawn, epoch):
    shards, order = drawn
    share, length = shares_of(shards, order), order.epoch_slots
    assert length == pytest.approx(1 / share.max(), abs=1)
    ids = order.slots(epoch * length, length).ids[:, 0]
    counts = np.cumsum(ids[:, None] == np.arange(len(share)), axis=0)
    expected = np.arange(1, length + 1)[:, None] * share
    assert np.abs(counts - expected).max() <= 2
    assert not counts[-1][share == 0].any()


@given(orders())
@settings(max_examples=30, deadline=None)
def test_over_many_epochs_each_row_keeps_its_share(drawn):
    shards, order = drawn
    number = 60
    ids = order.slots(0, number * order.epoch_slots).ids[:, 0]
    expected = shares_of(shards, order) * len(ids)
    # independent draws of a row that comes in half of the epochs would be up to 15 off
    assert np.abs(np.bincount(ids, minlength=len(expected)) - expected).max() < 5


@given(sets(), SEEDS, st.integers(1, 3), WINDOWS, st.sampled_from(["set", "race>=0"]), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_equal_weights_are_the_plain_order(shards, seed, members, window, where, epoch):
    shards.labels["race"][0] = 0
    rows = Rows(shards, where, number=1)
    shards.labels["one"] = np.zeros(rows.size, np.uint8)
    plain = PlainOrder(rows, seed, members, window=window)
    first, count = epoch * plain.epoch_slots, 2 * plain.epoch_slots
    for order in (
        WeightedOrder(rows, seed, "same", members, window=window),
        BalancedOrder(rows, seed, "one", members, window=window),
    ):
        assert order.epoch_slots == plain.epoch_slots
        assert_equal(order.slots(first, count), plain.slots(first, count))


@given(sets(), SEEDS, WINDOWS)
@settings(max_examples=30, deadline=None)
def test_balanced_shows_each_class_of_the_selected_rows_equally_often(shards, seed, window):
    shards.labels["race"][0] = 0
    order = BalancedOrder(Rows(shards, "race>=0"), seed, "race", window=window)
    race = shards.labels["race"]
    ids = order.slots(0, 100 * order.epoch_slots).ids[:, 0]
    classes, counts = np.unique(race[race >= 0], return_counts=True)
    assert order.epoch_slots == len(classes) * counts.min()
    found = np.bincount(race[ids], minlength=4)[classes]
    assert np.abs(found / len(ids) - 1 / len(classes)).max() < 0.05


def test_a_window_holds_few_shards_also_where_weights_differ():
    quality = np.tile([0.5, 1.0], 20_000).astype(np.float32)
    order = WeightedOrder(labelled([40_000], 40, {"quality": quality}), 0, "quality", window=3_000)
    assert order.epoch_slots == 30_000
    owner = order.slots(0, 30_000).ids[:, 0] // 1_000
    assert all(len(set(part.tolist())) <= 6 for part in owner.reshape(10, 3_000))  # 4, and one at either end


def test_members_are_permutations_of_their_own_with_the_same_shares():
    quality = np.random.default_rng(0).random(500).astype(np.float32)
    for window in (50, 65_536):
        order = WeightedOrder(labelled([500], 10, {"quality": quality}), 0, "quality", 2, window=window)
        ids = order.slots(0, order.epoch_slots).ids
        np.testing.assert_array_equal(np.sort(ids[:, 0]), np.sort(ids[:, 1]))
        assert (ids[:, 0] == ids[:, 1]).mean() < 0.1


def test_one_row_that_outweighs_all_others_comes_in_its_share_and_cheaply():
    quality = np.full(2_000_000, 1e-6, np.float32)
    quality[123_456] = 1
    order = WeightedOrder(labelled([2_000_000], 50, {"quality": quality}), 0, "quality")
    assert order.epoch_slots == 2  # the others weigh 2 together
    ids = order.slots(0, 30_000).ids[:, 0]
    assert (ids == 123_456).mean() == pytest.approx(1 / 3, abs=0.01)
    assert len(np.unique(ids)) > 19_000


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**62), st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_cells_begin_where_exact_integers_say(number, total, shares):
    ticks = [min(number - 1, int(share * number)) for share in shares]
    found = cell_starts(np.array(ticks), number, total)
    assert found.tolist() == [tick * total // number for tick in ticks]


@pytest.mark.parametrize(
    ("kind", "field", "message"),
    [
        (WeightedOrder, "q", r"data\.weights=q: /sets/train has no label `q`: use one of identity, low"),
        (WeightedOrder, "low", r'row 3 weighs -1: use a label of .* for example data\.rows="low>=0"'),
        (WeightedOrder, "nan", r"row 2 weighs nan"),
        (WeightedOrder, "zero", r"data\.weights=zero: all 5 rows weigh 0: .* or data\.order=plain"),
        (BalancedOrder, "nan", r"data\.balance=nan is not a class, its labels are not whole numbers"),
        (BalancedOrder, "low", r'row 3 has no class \(-1\): choose .* data\.rows="low>=0"'),
        (BalancedOrder, "far", r"1,000,000,000 is too large for a class"),
    ],
)
def test_labels_that_are_no_weights_or_classes_are_refused(kind, field, message):
    labels = {
        "low": np.array([1, 2, 3, -1, 0], np.int32),
        "nan": np.array([1, 2, np.nan, 1, 1], np.float32),
        "zero": np.zeros(5, np.float32),
        "far": np.array([0, 0, 10**9, 0, 0], np.int32),
    }
    with pytest.raises(UserError, match=message):
        kind(labelled([5], 1, labels), 0, field)
