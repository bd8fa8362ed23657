"""Counted randomness: uniform, independent of neighbours, bijective."""

from collections import Counter
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_shards import counter_rng


def test_values_are_fixed_for_ever():
    """A checkpoint of an older version must find the same order again."""
    assert int(counter_rng.key(7, "order")) == 5957790447667098552
    draws = counter_rng.uniform(np.uint64(1), np.array([0, 1, 2**40]), 2)
    again = counter_rng.uniform(np.uint64(1), np.array([2**40, 0]), 2)
    np.testing.assert_array_equal(draws[[2, 0]], again)
    assert counter_rng.permute(np.uint64(1), np.arange(10), 10).tolist() == [6, 2, 3, 5, 9, 8, 7, 0, 1, 4]


def test_keys_of_different_purposes_differ():
    purposes = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (-1,)]
    assert len({int(counter_rng.key(*purpose)) for purpose in purposes}) == len(purposes)


@pytest.mark.parametrize("start", [0, 2**40])
def test_uniform_is_uniform_in_rows_and_columns(start):
    draws = counter_rng.uniform(counter_rng.key(3, "test"), start + np.arange(20_000), 8)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        cells = np.bincount((column * 100).astype(int), minlength=100)
        assert stats.chisquare(cells).pvalue > 1e-4
        assert stats.kstest(column, "uniform").pvalue > 1e-4


def test_neighbours_are_not_correlated():
    draws = counter_rng.uniform(counter_rng.key(3, "test"), np.arange(50_000), 4)
    bound = 5 / np.sqrt(len(draws))
    for lag in (1, 2, 64):
        for one in range(4):
            for other in range(4):
                assert abs(np.corrcoef(draws[:-lag, one], draws[lag:, other])[0, 1]) < bound
    between = np.corrcoef(draws.T) - np.eye(4)
    assert np.abs(between).max() < bound


def test_neighbouring_streams_are_not_correlated():
    columns = np.stack(
        [counter_rng.uniform(counter_rng.key(s, "x"), np.arange(20_000), 1)[:, 0] for s in range(6)]
    )
    assert np.abs(np.corrcoef(columns) - np.eye(6)).max() < 5 / np.sqrt(20_000)


@given(st.integers(1, 5000), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_permute_is_a_bijection(size, seed):
    out = counter_rng.permute(counter_rng.key(seed), np.arange(size), size)
    np.testing.assert_array_equal(np.sort(out), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 64, 65, 127, 128, 1009, 65_536, 65_537])
def test_permute_is_a_bijection_at_special_sizes(size):
    for seed in range(3):
        out = counter_rng.permute(counter_rng.key(seed), np.arange(size), size)
        np.testing.assert_array_equal(np.sort(out), np.arange(size))


def test_permute_of_a_part_is_the_part_of_the_whole():
    stream, size = counter_rng.key(5), 1000
    whole = counter_rng.permute(stream, np.arange(size), size)
    some = np.array([999, 3, 3, 500])
    np.testing.assert_array_equal(counter_rng.permute(stream, some, size), whole[some])
    assert len(counter_rng.permute(stream, np.empty(0, np.int64), size)) == 0


def test_permute_takes_streams_and_sizes_by_element():
    sizes = np.array([3, 50, 1, 7])
    streams = counter_rng.derive(counter_rng.key(1), np.arange(4))
    indices = np.array([2, 49, 0, 3])
    together = counter_rng.permute(streams, indices, sizes)
    alone = [counter_rng.permute(streams[i], indices[i : i + 1], int(sizes[i]))[0] for i in range(4)]
    np.testing.assert_array_equal(together, alone)


def test_small_and_large_sizes_mix_in_one_call():
    sizes = np.array([5, 5000, 1023, 1024] * 8)
    indices = np.arange(32) % 5
    together = counter_rng.permute(counter_rng.key(4), indices, sizes)
    alone = [
        int(counter_rng.permute(counter_rng.key(4), [i], s)[0]) for i, s in zip(indices, sizes, strict=True)
    ]
    assert together.tolist() == alone


def test_permute_refuses_an_index_outside():
    for index in (-1, 5):
        with pytest.raises(IndexError, match="outside"):
            counter_rng.permute(np.uint64(0), np.array([index]), 5)


def test_permute_of_a_huge_domain_spreads_evenly():
    size = 10**12
    out = counter_rng.permute(counter_rng.key(2), np.arange(20_000), size)
    assert len(np.unique(out)) == len(out)
    assert stats.kstest(out / size, "uniform").pvalue > 1e-4
    steps = np.diff(out) % size
    assert stats.kstest(steps / size, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_permutations_of_few_elements_are_about_equally_likely(size):
    """Identities have few images. The tolerance is 12 % beyond the counting error."""
    expected, number = 400, factorial(size)
    streams = counter_rng.derive(counter_rng.key(0, "few"), np.arange(expected * number))
    columns = [counter_rng.permute(streams, np.full(len(streams), i), size) for i in range(size)]
    counts = np.array(list(Counter(map(tuple, np.stack(columns, 1).tolist())).values()))
    assert len(counts) == number
    assert counts.var() < expected + (0.12 * expected) ** 2


def test_normal_draws_are_counted_and_standard():
    stream, positions = counter_rng.key(7, "latents", "G"), np.arange(20_000)
    drawn = counter_rng.normal(stream, positions, 5)
    assert drawn.shape == (20_000, 5)
    np.testing.assert_array_equal(counter_rng.normal(stream, positions[300:310], 5), drawn[300:310])
    assert np.abs(drawn.mean(0)).max() < 0.03
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(5), atol=0.04)
    assert abs((np.abs(drawn) > 1.96).mean() - 0.05) < 0.003
