"""The order: each epoch a permutation, equal for any number of ranks, also a changing one."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sampling.order import (
    GroupOrder,
    PlainOrder,
    Slots,
    UnpairedOrder,
    evaluation_blocks,
    rank_block,
)


def shards_of(identity_sizes, num_shards=1):
    """A set of identities; shards cut it evenly, also through the middle of an identity."""
    start = np.concatenate([[0], np.cumsum(identity_sizes)]).astype(np.uint64)
    total = int(start[-1])
    cuts = (np.arange(num_shards + 1) * total // num_shards).astype(np.uint64)
    return SimpleNamespace(identity_start=start, shard_start=cuts)


def identity_of(shards, ids):
    return np.searchsorted(shards.identity_start, ids, "right") - 1


def whole(order, clock, batch, world) -> Slots:
    """The global batch, put together from what the ranks ask for."""
    parts = [order.slots(*rank_block(clock, batch, rank, world, unit=order.unit)) for rank in range(world)]
    columns = ("ids", "sets", "positions", "repeat")
    return Slots(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def assert_equal(one: Slots, other: Slots) -> None:
    for name in ("ids", "sets", "positions", "repeat"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


SETS = st.builds(shards_of, st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 12))
ORDERS = st.builds(
    lambda shards, seed, group, window: (
        GroupOrder(shards, seed, group=group, window=window)
        if group
        else PlainOrder(shards, seed, window=window)
    ),
    st.builds(shards_of, st.lists(st.integers(1, 30), min_size=20, max_size=40), st.integers(1, 12)),
    st.integers(0, 2**31),
    st.sampled_from([0, 0, 1, 2, 3, 4]),
    st.sampled_from([1, 20, 100, 65_536]),
)


@given(SETS, st.integers(0, 2**31), st.integers(1, 4), st.sampled_from([1, 30, 65_536]), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_each_epoch_of_each_member_is_a_permutation(shards, seed, members, window, epoch):
    order = PlainOrder(shards, seed, members, window=window)
    total = int(shards.shard_start[-1])
    assert order.epoch_slots == total
    slots = order.slots(epoch * total, total)
    assert slots.ids.shape == (total, members)
    for column in slots.ids.T:
        np.testing.assert_array_equal(np.sort(column), np.arange(total))
    assert not slots.repeat.any()
    np.testing.assert_array_equal(slots.positions, epoch * total + np.arange(total))


@given(SETS, st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([1, 30, 65_536]), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_group_epoch_visits_every_image_once_besides_counted_repeats(shards, seed, group, window, epoch):
    order = GroupOrder(shards, seed, group=group, window=window)
    sizes = np.diff(shards.identity_start.astype(np.int64))
    assert order.epoch_slots == (-(-sizes // group) * group).sum()
    slots = order.slots(epoch * order.epoch_slots, order.epoch_slots)
    ids = slots.ids[:, 0]
    np.testing.assert_array_equal(np.sort(ids[~slots.repeat]), np.arange(sizes.sum()))
    groups = ids.reshape(-1, group)
    owner = identity_of(shards, groups)
    assert (owner == owner[:, :1]).all()
    for row, who in zip(groups, owner[:, 0], strict=True):
        assert len(set(row.tolist())) == min(group, sizes[who])  # no needless repeat


@given(ORDERS, st.integers(1, 6), st.integers(0, 400), st.sampled_from([2, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_any_number_of_ranks_sees_the_same_stream(order, shares, batches, world):
    batch = 8 * order.unit * shares
    clock = batches * batch
    assert_equal(whole(order, clock, batch, 1), whole(order, clock, batch, world))


@given(ORDERS, st.integers(1, 3), st.lists(st.integers(1, 5), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_change_of_ranks_4_2_3_in_mid_epoch_changes_nothing(order, shares, lengths):
    batch = 12 * order.unit * shares
    straight = order.slots(0, sum(lengths) * batch)
    clock, parts = 0, []
    for world, length in zip((4, 2, 3), lengths, strict=True):
        for _ in range(length):
            parts.append(whole(order, clock, batch, world))
            clock += batch
    columns = ("ids", "sets", "positions", "repeat")
    joined = Slots(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))
    assert_equal(straight, joined)


@given(ORDERS, st.data())
@settings(max_examples=30, deadline=None)
def test_killed_anywhere_the_stream_goes_on_where_it_stood(order, data):
    total = 3 * order.epoch_slots
    kill = data.draw(st.integers(0, total))
    count = data.draw(st.integers(0, total - kill))
    straight = order.slots(0, total)
    rest = order.slots(kill, count)
    np.testing.assert_array_equal(straight.ids[kill : kill + count], rest.ids)
    np.testing.assert_array_equal(straight.repeat[kill : kill + count], rest.repeat)


@given(ORDERS, st.lists(st.integers(0, 300), min_size=1, max_size=50))
@settings(max_examples=30, deadline=None)
def test_scattered_positions_give_the_slots_of_the_stream(order, positions):
    straight, scattered = order.slots(0, 301), order.at(np.array(positions))
    for name in ("ids", "sets", "positions", "repeat"):
        np.testing.assert_array_equal(getattr(scattered, name), getattr(straight, name)[positions])


def test_epochs_and_seeds_differ():
    shards = shards_of([10] * 30, 6)
    for make in (PlainOrder, lambda shards, seed: GroupOrder(shards, seed, group=2)):
        first = make(shards, 0)
        length = first.epoch_slots
        one, two = first.slots(0, length).ids, first.slots(length, length).ids
        assert (one == two).mean() < 0.1
        assert (one == make(shards, 1).slots(0, length).ids).mean() < 0.1


def test_reading_stays_within_a_window_of_shards():
    shards = shards_of([1] * 4000, 40)  # 100 samples a shard
    order = PlainOrder(shards, 0, window=500)
    owner = order.slots(0, 4000).ids[:, 0] // 100
    windows = [set(part.tolist()) for part in owner.reshape(8, 500)]
    assert all(len(window) == 5 for window in windows)
    assert set.union(*windows) == set(range(40))
    assert len(set(owner[:50].tolist())) == 5  # a batch draws from the whole window


def test_a_batch_mixes_identities_of_the_whole_window():
    shards = shards_of([8] * 500, 20)
    order = GroupOrder(shards, 0, group=4)
    identities = identity_of(shards, order.slots(0, 64).ids[:, 0])
    assert len(set(identities.tolist())) >= 14  # of 16 groups
    assert np.ptp(identities) > 250


def test_members_of_a_mosaic_differ_and_share_a_window():
    shards = shards_of([1] * 4000, 40)
    ids = PlainOrder(shards, 0, 4, window=500).slots(0, 500).ids
    owner = ids // 100
    assert (np.diff(np.sort(ids, axis=1)) == 0).mean() < 0.01
    assert len(set(owner.ravel().tolist())) == 5


def test_unpaired_sets_run_in_their_own_epochs():
    a, b = shards_of([7] * 3), shards_of([5] * 2, 2)
    order = UnpairedOrder(a, b, 0)
    assert (order.members, order.epoch_slots) == (2, 21)
    slots = order.slots(0, 210)
    assert (slots.sets == [0, 1]).all()
    for column, size in zip(slots.ids.T, (21, 10), strict=True):
        for epoch in column.reshape(-1, size):
            np.testing.assert_array_equal(np.sort(epoch), np.arange(size))
    assert_equal(whole(order, 42, 12, 1), whole(order, 42, 12, 3))
    pairs = slots.ids[:, 0] * 10 + slots.ids[:, 1]
    assert len(np.unique(pairs)) > 100  # partners change


@given(st.integers(0, 2_000), st.integers(1, 100), st.integers(1, 64))
@settings(max_examples=50, deadline=None)
def test_evaluation_blocks_are_the_same_at_any_world_size_and_tile_without_padding(n, batch, world):
    ranks = [evaluation_blocks(n, batch, rank, world) for rank in range(world)]
    whole = evaluation_blocks(n, batch, 0, 1)
    assert sorted((block for blocks in ranks for block in blocks), key=lambda block: block.start) == whole
    assert [row for block in whole for row in block] == list(range(n))
    lengths = [len(blocks) for blocks in ranks]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("batch", "world", "unit", "message"),
    [
        (100, 8, 1, "batch=100 is not divisible by 8 ranks: use 96 or 104"),
        (3, 4, 1, "batch=3 is not divisible by 4 ranks: use 4"),
        (24, 4, 4, "batch=24 is not divisible by 4 ranks of groups of 4: use 16 or 32"),
        (0, 2, 1, "batch=0 is not divisible by 2 ranks: use 2"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(batch, world, unit, message):
    with pytest.raises(UserError, match=message):
        rank_block(0, batch, 0, world, unit=unit)


def test_empty_sets_and_empty_groups_are_refused():
    empty = shards_of([])
    with pytest.raises(UserError, match="no samples"):
        PlainOrder(empty, 0)
    with pytest.raises(UserError, match="no identities"):
        GroupOrder(empty, 0, group=2)
    with pytest.raises(UserError, match=r"data\.group=0"):
        GroupOrder(shards_of([3]), 0, group=0)


def test_runs_that_began_before_orders_had_rows_draw_the_same_samples():
    shards = shards_of((np.arange(300) * 7919) % 23 + 1, 13)
    for order, epoch, digest in (
        (PlainOrder(shards, 5, 2, window=600), 3589, "564e738e63a965c2"),
        (GroupOrder(shards, 5, group=4, window=600), 4060, "b10fb4d372987927"),
    ):
        slots = order.slots(epoch // 2, 2 * epoch)
        drawn = slots.ids.astype("<i8").tobytes() + slots.repeat.tobytes()
        assert (order.epoch_slots, hashlib.sha256(drawn).hexdigest()[:16]) == (epoch, digest)
