"""Counted noise in torch: the bits of NumPy's, normal numbers, the same ones however a batch is cut."""

import numpy as np
import pytest
import torch
from scipy import stats

from data_shards import counter_noise, counter_rng
from data_shards.batch import Batch
from tests.support.host_reads import HostReads


def batch(low: int, high: int) -> Batch:
    rows = torch.arange(low, high)
    return Batch({"image": torch.zeros(len(rows), 3, 2, 2)}, {}, rows[:, None], rows, seed=5)


def seeds_of(stream, positions):
    return torch.from_numpy(counter_rng.derive(stream, positions).view(np.int64))


def test_its_bits_are_those_of_numpy():
    stream, positions = counter_rng.key(3, "x"), np.array([0, 1, 7, 2**40])
    found = counter_noise.bits(seeds_of(stream, positions), 1000)
    expected = counter_rng.bits(stream, positions, 1000)
    np.testing.assert_array_equal(found.numpy().view(np.uint64), expected)


@pytest.mark.parametrize("dim", [1, 7, 4096])
def test_numbers_are_box_and_muller_s_of_the_bits(dim):
    stream, positions = counter_rng.key(3, "x"), np.arange(3)
    found = counter_noise.normal(seeds_of(stream, positions), dim)
    words = counter_rng.bits(stream, positions, -(-dim // 2))
    length = np.sqrt(-2 * np.log(((words >> np.uint64(32)) + 0.5) * 2.0**-32))
    angle = 2 * np.pi * (words & np.uint64(2**32 - 1)) * 2.0**-32
    expected = np.concatenate([length * np.cos(angle), length * np.sin(angle)], 1)[:, :dim]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-3 * (dim > 1) + 1e-4)
    assert np.abs(found.numpy() - expected).mean() < 1e-6


def test_they_are_normal_and_uncorrelated():
    noise = batch(1000, 1064).noise("make", 5000).double().numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.abs(noise).max() < 6.8
    assert abs(stats.kurtosis(noise.ravel())) < 0.05
    rows = np.corrcoef(noise)
    assert np.abs(rows - np.eye(64)).max() < 0.08  # of 5000 numbers each: 0.014 is one deviation
    halves = np.corrcoef(noise[:, :2500].ravel(), noise[:, 2500:].ravel())[0, 1]
    assert abs(halves) < 0.01
    squares = np.corrcoef(noise[:, :2500].ravel() ** 2, noise[:, 2500:].ravel() ** 2)[0, 1]
    assert abs(squares) < 0.01


def test_a_batch_has_the_same_noise_however_it_is_cut():
    whole = batch(0, 12).noise("make", 301)
    for size in (1, 3, 4):
        parts = [batch(low, low + size).noise("make", 301) for low in range(0, 12, size)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(batch(0, 12)[4:8].noise("make", 301), whole[4:8])
    assert (batch(0, 12).noise("judge", 301) - whole).abs().max() > 1


def test_only_positions_are_read_on_the_host():
    with HostReads() as reads:
        assert batch(0, 4).noise("make", 10).shape == (4, 10)
    assert reads.found == []
