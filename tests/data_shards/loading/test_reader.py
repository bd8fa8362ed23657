"""Random access: exact bytes, few open files, short reads named."""

import os

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.loading.reader import Reader, name_of
from tests.support.small_set import build, jpeg, photo


@pytest.fixture
def blobs():
    return [jpeg(photo(number, 40 + number, 36)) for number in range(20)]


@pytest.fixture
def shards(tmp_path, blobs):
    return build(tmp_path / "set", blobs, [4] * 5, shards=5)


def test_reads_exactly_the_member_in_the_order_asked_for(shards, blobs):
    reader = Reader(shards)
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 2))
    assert reader.read(ids) == [blobs[number] for number in ids]
    assert reader.read(np.empty(0, np.int64)) == []


def test_keeps_few_files_open_and_leaves_none(shards, blobs):
    before = len(os.listdir("/proc/self/fd"))
    reader = Reader(shards, max_open=2)
    for _ in range(3):
        assert reader.read(np.arange(20)) == blobs
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reader.read(np.array([7])) == [blobs[7]]  # usable again


def test_hints_cover_the_images_and_join_neighbours(shards, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, length, advice: calls.append((start, length)))
    reader = Reader(shards)
    reader.hint(np.array([3, 0, 2, 16]))
    assert len(calls) == 2  # samples 0, 2, 3 lie side by side in the first of the shards
    low, length = calls[0]
    assert low <= shards.offset[0]
    assert low + length >= shards.offset[3] + shards.size[3]
    reader.hint(np.empty(0, np.int64))
    assert len(calls) == 2


def test_a_truncated_shard_is_named_with_its_member(shards):
    path = shards.shards[2]
    os.truncate(path, int(shards.offset[10]) + 5)
    with pytest.raises(UserError, match=r"small-000002\.tar ends within .*000010\.jpg .*5 of"):
        Reader(shards).read(np.array([8, 10]))


def test_a_missing_shard_is_named(shards):
    shards.shards[1].unlink()
    reader = Reader(shards)
    reader.hint(np.array([5]))  # a hint never fails
    with pytest.raises(UserError, match=r"small-000001\.tar.*rostro check"):
        reader.read(np.array([5]))
    assert "small-000001.tar at offset" in name_of(shards, 5)
