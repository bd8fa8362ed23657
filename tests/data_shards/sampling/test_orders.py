"""Every order is a pure function of the position, at any world size; the mixed order keeps its shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sampling.mixed import PARTS, MixedOrder, pattern
from data_shards.sampling.order import GroupOrder, PlainOrder, UnpairedOrder
from data_shards.sampling.orders import ORDERS, OrderRequest, make
from data_shards.sampling.rows import Rows
from data_shards.sampling.weighted import BalancedOrder, WeightedOrder
from tests.support.labelled_set import assert_equal, joined, labelled, sets, whole

SEEDS = st.integers(0, 2**31)
SHARES = st.lists(st.integers(1, 999), min_size=1, max_size=4, unique=True).map(
    lambda cuts: np.diff([0, *sorted(cuts), PARTS]).tolist()
)


def halves(shards):
    """The same set's two halves, both not empty."""
    shards.labels["half"] = np.arange(int(shards.shard_start[-1])) % 2
    return [Rows(shards, f"half=={half}") for half in (0, 1)]


@st.composite
def orders(draw, kinds=tuple(ORDERS)):
    """(kind, order), in windows of any size; groups and mixed ones with groups have a unit above 1."""
    shards, seed = draw(sets(smallest=2)), draw(SEEDS)
    window, members = draw(st.sampled_from([1, 30, 65_536])), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(kinds))
    if kind == "plain":
        return kind, PlainOrder(draw(st.sampled_from(halves(shards))), seed, members, window=window)
    if kind == "groups":
        return kind, GroupOrder(shards, seed, draw(st.integers(1, 4)), window=window)
    if kind == "unpaired":
        a, b = halves(shards)
        return kind, UnpairedOrder(a, b, seed, epoch_slots=draw(st.integers(0, 20)), window=window)
    if kind == "weighted":
        return kind, WeightedOrder(shards, seed, "quality", members, window=window)
    if kind == "balanced":
        return kind, BalancedOrder(shards, seed, "class", members, window=window)
    shares = draw(SHARES)
    parts = [GroupOrder(shards, seed, draw(st.integers(1, 3)), window=window)]
    parts += [PlainOrder(shards, seed + number, window=window) for number in range(1, len(shares))]
    return kind, MixedOrder(parts, shares)


@given(orders(), st.integers(1, 3), st.integers(0, 400), st.sampled_from([2, 4, 8]))
@settings(max_examples=80, deadline=None)
def test_any_number_of_ranks_sees_the_same_slots(drawn, shares, batches, world):
    _, order = drawn
    batch = 8 * order.unit * shares
    assert_equal(whole(order, batches * batch, batch, 1), whole(order, batches * batch, batch, world))


@given(
    orders(),
    st.integers(1, 2),
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6]), st.integers(1, 4)), max_size=4),
)
@settings(max_examples=80, deadline=None)
def test_ranks_that_change_in_mid_epoch_change_nothing(drawn, shares, lives):
    _, order = drawn
    batch, clock, parts = 12 * order.unit * shares, 0, [order.slots(0, 0)]
    for world, updates in lives:
        for _ in range(updates):
            parts.append(whole(order, clock, batch, world))
            clock += batch
    assert_equal(joined(parts), order.slots(0, clock))


@given(orders(), st.data())
@settings(max_examples=80, deadline=None)
def test_killed_anywhere_a_run_continues_with_the_slots_it_would_have_seen(drawn, data):
    _, order = drawn
    total = min(3 * order.epoch_slots, 1_500)
    kill = data.draw(st.integers(0, total))
    straight, rest = order.slots(0, total), order.slots(kill, total - kill)
    assert_equal(joined([order.slots(0, kill), rest]), straight)


@given(orders(), st.lists(st.integers(0, 300), max_size=60))
@settings(max_examples=80, deadline=None)
def test_slots_at_any_positions_are_those_of_the_whole(drawn, positions):
    _, order = drawn
    positions = np.array(positions, np.int64)
    straight, scattered = order.slots(0, 301), order.at(positions)
    assert scattered.ids.shape == scattered.sets.shape == (len(positions), order.members)
    for name in ("ids", "sets", "positions", "repeat"):
        np.testing.assert_array_equal(getattr(scattered, name), getattr(straight, name)[positions])


@given(orders(kinds=("plain", "weighted", "balanced")), st.integers(0, 5), st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_an_epoch_read_by_changing_ranks_visits_each_row_once_or_within_2_of_its_share(
    drawn, epoch, batch, data
):
    kind, order = drawn
    length, parts, clock = order.epoch_slots, [], 0
    while clock < length:
        world = data.draw(st.sampled_from([1, 2, 3]))
        parts.append(whole(order, epoch * length + clock, batch * 6, world))
        clock += batch * 6
    seen = joined(parts).ids[:length, 0]
    np.testing.assert_array_equal(seen, order.slots(epoch * length, length).ids[:, 0])
    assert np.bincount(seen).max() <= (1 if kind == "plain" else 2)


@given(sets(smallest=2), SEEDS, st.sampled_from([1, 30, 65_536]), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_both_sides_of_unpaired_are_permutations_in_their_own_epochs(shards, seed, window, epoch):
    shards.labels["part"] = np.minimum(np.arange(int(shards.shard_start[-1])) % 3, 1)
    a, b = Rows(shards, "part==0"), Rows(shards, "part==1")
    order = UnpairedOrder(a, b, seed, window=window)
    assert order.epoch_slots == max(len(a), len(b))
    for member, rows in enumerate((a, b)):
        slots = order.slots(epoch * len(rows), len(rows))
        np.testing.assert_array_equal(np.sort(slots.ids[:, member]), rows.ids(np.arange(len(rows))))
        assert not slots.sets.any()
    assert UnpairedOrder(a, b, seed, epoch_slots=7).epoch_slots == 7


@given(SHARES.filter(lambda shares: min(shares) >= 50), st.integers(0, 3_000), SEEDS)
@settings(max_examples=30, deadline=None)
def test_any_1000_consecutive_slots_hold_exact_shares_and_parts_run_in_their_own_epochs(shares, first, seed):
    sizes = [7 + 30 * number for number in range(len(shares))]
    rows = [Rows(labelled([size], 2, {}), number=number) for number, size in enumerate(sizes)]
    order = make("mixed", OrderRequest(rows, seed, shares=shares))
    slots = order.slots(first, PARTS)
    assert np.bincount(slots.sets[:, 0], minlength=len(shares)).tolist() == shares
    stream = order.slots(0, order.epoch_slots)
    for number, size in enumerate(sizes):
        own = stream.ids[stream.sets == number]
        assert len(own) >= size
        for part in own[: len(own) // size * size].reshape(-1, size):
            np.testing.assert_array_equal(np.sort(part), np.arange(size))


@given(SHARES, st.integers(1, PARTS), st.integers(0, PARTS))
@settings(max_examples=60, deadline=None)
def test_a_batch_comes_near_the_shares(shares, batch, first):
    part, _ = pattern(shares)
    counts = np.bincount(np.resize(part, 2 * PARTS)[first : first + batch], minlength=len(shares))
    assert np.abs(counts - batch * np.array(shares) / PARTS).max() <= len(shares)


def test_groups_stay_whole_in_a_mix():
    shards = labelled([5] * 40, 4, {})
    identity = shards.labels["identity"]
    order = MixedOrder([GroupOrder(shards, 0, 4), PlainOrder(Rows(shards, number=1), 1)], [250, 750])
    assert order.unit == 4
    slots = order.slots(0, 4_000)
    groups = identity[slots.ids[slots.sets[:, 0] == 0, 0]].reshape(-1, 4)
    assert len(groups) == 250
    assert (groups == groups[:, :1]).all()


def test_orders_are_made_by_name():
    shards = labelled([6] * 5, 2, {"w": np.ones(30, np.float32), "c": np.zeros(30, np.int32)})
    rows = [Rows(shards), Rows(shards)]
    request = OrderRequest(rows, 3, group=2, weights="w", balance="c", shares=[500, 500])
    for kind in ORDERS:
        slots = make(kind, request).slots(0, 60)
        assert slots.ids.shape == (60, 2 if kind == "unpaired" else 1)
    with pytest.raises(UserError, match=r"data\.order=random is not known: use plain or groups or unpaired"):
        make("random", request)


@pytest.mark.parametrize("shares", [[500, 400], [1_000, 0], [1_100, -100], []])
def test_shares_that_do_not_sum_to_1_are_refused(shares):
    parts = [PlainOrder(labelled([6], 1, {}), 0) for _ in shares]
    with pytest.raises(UserError, match=r"data\.mix: the shares .* are not positive numbers that sum to 1"):
        MixedOrder(parts, shares)


def test_parts_with_other_numbers_of_members_are_refused():
    shards = labelled([6], 1, {})
    with pytest.raises(UserError, match=r"data\.mix: the parts have 1 and 2 members a slot"):
        MixedOrder([PlainOrder(shards, 0), PlainOrder(shards, 0, 2)], [500, 500])
