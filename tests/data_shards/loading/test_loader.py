"""Loaders: a batch is a function of the clock alone, whatever threads, look-ahead, ranks and starts were."""

import importlib.util
import threading

import numpy as np
import pytest
import torch

from data_shards.errors import DecodeError, UserError
from data_shards.loading import loader
from data_shards.loading.loader import EvalLoader, TrainLoader, choose_backend
from data_shards.loading.node_cache import LOCK
from data_shards.sampling.order import GroupOrder, PlainOrder, UnpairedOrder
from data_shards.sampling.view import View
from hpc.config.schema import Augment
from hpc.data.views import view_of
from tests.support.small_set import build, jpeg, photo

SQUARE = (48, 48)
SIZES = [5, 7, 3, 9, 12, 4]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    blobs = [jpeg(photo(number, 90 + number, 100)) for number in range(sum(SIZES))]
    return build(tmp_path_factory.mktemp("set"), blobs, SIZES)


@pytest.fixture(params=["host", "dali"])
def backend(request):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali")
    return request.param


def make(shards, *, order=None, **keys):
    options = {
        "seed": 1,
        "rank": 0,
        "world": 1,
        "batch": 24,
        "backend": "host",
        "threads": 2,
        "ahead": 2,
        "view": view_of(Augment(hue=10.0), SQUARE),
        "fields": ("identity", "weight"),
    }
    return TrainLoader(order or PlainOrder(shards, 3), shards, **{**options, **keys})


def run(train, clock, count=1):
    train.start(clock)
    out = [train.next() for _ in range(count)]
    train.close()
    return out


def assert_equal(one, other):
    assert torch.equal(one.images["image"], other.images["image"])
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.positions, other.positions)
    assert one.labels.keys() == other.labels.keys()
    assert all(torch.equal(one.labels[name], other.labels[name]) for name in one.labels)


def test_a_batch_is_what_it_says(shards, backend):
    (batch,) = run(make(shards, backend=backend, order=GroupOrder(shards, 0, group=4)), 48)
    assert batch.images["image"].shape == (24, 3, 48, 48)
    assert batch.images["image"].dtype == torch.uint8
    assert batch.images["image"].permute(0, 2, 3, 1).is_contiguous()
    assert batch.positions.tolist() == list(range(48, 72))
    assert {name: column.dtype for name, column in batch.labels.items()} == {
        "identity": torch.int64,
        "weight": torch.float32,
        "repeat": torch.bool,
    }
    np.testing.assert_array_equal(batch.labels["identity"], shards.labels["identity"][batch.ids[:, 0]])
    assert (batch.labels["identity"].reshape(6, 4) == batch.labels["identity"][::4, None]).all()
    assert len(batch) == 24


def test_images_belong_to_their_ids(shards, backend):
    plain = Augment([1.0, 1.0], flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    (batch,) = run(make(shards, backend=backend, view=view_of(plain, SQUARE)), 0)
    rows = [(shards.shards[int(shards.shard[i])], shards.offset[i], shards.size[i]) for i in batch.ids[:, 0]]
    blobs = [path.read_bytes()[offset : offset + size] for path, offset, size in rows]
    expected = loader.decode_images(blobs, 48).astype(float)
    found = batch.images["image"].permute(0, 2, 3, 1).numpy().astype(float)
    assert np.abs(found - expected).mean(axis=(1, 2, 3)).max() < 3


@pytest.mark.parametrize("change", [{"threads": 1}, {"threads": 5}, {"ahead": 1}, {"ahead": 7}])
def test_threads_and_look_ahead_change_no_bit(shards, backend, change):
    expected = run(make(shards, backend=backend), 24, 3)
    for one, other in zip(expected, run(make(shards, backend=backend, **change), 24, 3), strict=True):
        assert_equal(one, other)


def test_a_start_anywhere_gives_the_batches_of_the_straight_run(shards, backend):
    straight = run(make(shards, backend=backend), 0, 5)
    train = make(shards, backend=backend)
    for at in (4, 0, 2):  # the same loader, started again
        train.start(24 * at)
        assert_equal(straight[at], train.next())
    train.close()
    assert train.waited > 0


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_together_see_the_batch_of_one(shards, backend, world):
    expected = run(make(shards, backend=backend), 48, 2)
    parts = [run(make(shards, backend=backend, rank=rank, world=world), 48, 2) for rank in range(world)]
    for number, whole in enumerate(expected):
        images = torch.cat([part[number].images["image"] for part in parts])
        assert torch.equal(whole.images["image"], images)
        for name in ("ids", "positions"):
            joined = torch.cat([getattr(part[number], name) for part in parts])
            assert torch.equal(getattr(whole, name), joined)


def test_several_members_have_an_axis_of_their_own(shards, backend):
    order = PlainOrder(shards, 3, 4)
    (batch,) = run(make(shards, backend=backend, order=order, batch=6), 12)
    assert batch.images["image"].shape == (6, 4, 3, 48, 48)
    assert batch.ids.shape == batch.labels["identity"].shape == (6, 4)
    (alone,) = run(make(shards, backend=backend, batch=6), 12)
    assert torch.equal(batch.images["image"][:, 0], alone.images["image"])


def test_two_sets_side_by_side(shards, backend, tmp_path):
    other = build(tmp_path, [jpeg(photo(100 + n, 60, 70)) for n in range(10)], [10], shards=2)
    order = UnpairedOrder(shards, other, 3)
    train = TrainLoader(
        order,
        [shards, other],
        seed=1,
        rank=0,
        world=1,
        batch=6,
        view=view_of(Augment(), SQUARE),
        backend=backend,
        threads=2,
        ahead=1,
        fields={"a": ("weight",), "b": ("weight", "identity")},
    )
    (batch,) = run(train, 0)
    assert batch.labels.keys() == {"a.weight", "b.weight", "b.identity", "repeat"}
    for side, part in enumerate((shards, other)):
        name = "ab"[side]
        np.testing.assert_array_equal(
            batch.labels[f"{name}.weight"], part.labels["weight"][batch.ids[:, side]]
        )
        assert batch.images[name].shape == (6, 3, 48, 48)
        assert batch.images[name].permute(0, 2, 3, 1).is_contiguous()
    assert len(batch.placed) == 12
    (alone,) = run(make(shards, backend=backend, batch=6, view=view_of(Augment(), SQUARE)), 0)
    assert torch.equal(batch.images["a"], alone.images["image"])


@pytest.mark.parametrize("damage", ["garbage", "truncated", "in the middle"])
def test_an_image_that_does_not_decode_is_named(backend, tmp_path, damage):
    blobs = [jpeg(photo(number, 64, 64)) for number in range(24)]
    shards = build(tmp_path, blobs, [24])
    path, offset, size = shards.shards[1], int(shards.offset[11]), int(shards.size[11])
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data[offset : offset + size] = bytes(size)
        path.write_bytes(data)
    elif damage == "in the middle":  # a decoder would go on after it
        middle = offset + size // 2
        data[middle : middle + 8] = bytes(byte ^ 0x55 for byte in data[middle : middle + 8])
        path.write_bytes(data)
    else:
        shards.size[11] = size // 2
    train = make(shards, backend=backend)
    train.start(0)
    message = r"small-000001\.tar:000011\.jpg \(sample 11\) does not decode .*rostro check"
    for _ in range(2):  # one batch is the whole set; the loader stays stopped
        with pytest.raises(DecodeError, match=message):
            train.next()
    train.close()


def test_a_damaged_image_of_a_staged_copy_is_mended_by_a_new_copy(backend, tmp_path):
    shards = build(tmp_path / "copy", [jpeg(photo(number, 64, 64)) for number in range(24)], [24])
    (tmp_path / LOCK).touch()
    path, offset = shards.shards[1], int(shards.offset[11])
    data = bytearray(path.read_bytes())
    data[offset + 300] ^= 1
    path.write_bytes(data)
    train = make(shards, backend=backend)
    train.start(0)
    with pytest.raises(DecodeError, match=f"delete {tmp_path / 'copy'}, the next start copies it again"):
        train.next()
    train.close()


def test_a_short_shard_stops_the_run_by_name(backend, tmp_path):
    shards = build(tmp_path, [jpeg(photo(number, 64, 64)) for number in range(24)], [24])
    shards.shards[2].write_bytes(b"")
    train = make(shards, backend=backend)
    train.start(0)
    with pytest.raises(UserError, match=r"small-000002\.tar ends within"):
        train.next()
    train.close()


def test_close_leaves_no_thread(shards):
    before = threading.active_count()
    train = make(shards, ahead=3)
    train.start(0)
    assert threading.active_count() > before
    train.close()
    train.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="start"):
        train.next()


@pytest.mark.parametrize("world", [1, 3, 5])
def test_evaluation_sees_each_image_once(shards, backend, world):
    ids, images = [], []
    for rank in range(world):
        held_out = EvalLoader(shards, rank=rank, world=world, batch=6, view=View((48, 48)), backend=backend)
        batches = list(held_out)
        assert len(batches) == len(held_out)
        ids += [number for batch in batches for number in batch.ids[:, 0].tolist()]
        images += [batch.images["image"] for batch in batches]
    assert sorted(ids) == list(range(40))
    alone = EvalLoader(
        shards, rank=0, world=1, batch=64, view=View((48, 48)), backend=backend, fields=("identity",)
    )
    (batch,) = list(alone)
    assert torch.equal(batch.images["image"][ids], torch.cat(images))
    np.testing.assert_array_equal(batch.labels["identity"], shards.labels["identity"])
    assert_equal(batch, next(iter(alone)))  # again, and given up in the middle


def test_more_ranks_than_images_leave_empty_blocks(tmp_path):
    shards = build(tmp_path, [jpeg(photo(0, 32, 32))], [1], shards=1)
    counts = [len(list(EvalLoader(shards, rank=r, world=3, batch=2, view=View((16, 16))))) for r in range(3)]
    assert sum(counts) == 1


def test_wrong_input_is_refused_by_key(shards):
    with pytest.raises(UserError, match="batch=25 is not divisible by 2 ranks: use 24 or 26"):
        make(shards, batch=25, world=2)
    with pytest.raises(UserError, match="batch=6 is not divisible by 2 ranks of groups of 4: use 8"):
        make(shards, order=GroupOrder(shards, 0, group=4), batch=6, world=2)
    with pytest.raises(UserError, match=r"64 ranks, but .* holds 40 samples"):
        make(shards, batch=64, world=64)
    with pytest.raises(UserError, match="no label `age`, only identity, weight"):
        make(shards, fields=("age",))
    with pytest.raises(UserError, match=r"eval\.batch=0"):
        EvalLoader(shards, rank=0, world=1, batch=0, view=View((8, 8)))


def test_backends_are_chosen_by_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_backend("auto") == choose_backend("host") == "host"
    with pytest.raises(UserError, match=r"data\.backend=cuda.*auto, dali or host"):
        choose_backend("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_backend("dali") == "dali"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_backend("auto") == "dali"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_backend("auto") == "host"
    with pytest.raises(UserError, match=r"data\.backend=dali is not installed.*data\.backend=host"):
        choose_backend("dali")
