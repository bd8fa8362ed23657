"""Ragged against lists of arrays: slices, picks, joins, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_shards.ragged import Ragged

COUNTS = st.lists(st.integers(0, 4), min_size=1, max_size=8)


def make(counts: list[int]) -> tuple[Ragged, list[list[int]]]:
    numbers = iter(range(1000))
    lists = [[next(numbers) for _ in range(count)] for count in counts]
    return Ragged.of_lists([torch.tensor(part, dtype=torch.int64) for part in lists]), lists


def lists_of(ragged: Ragged) -> list[list[int]]:
    return [ragged.of(sample).tolist() for sample in range(len(ragged))]


@given(COUNTS, st.integers(-9, 9), st.integers(-9, 9))
def test_slices_are_those_of_a_list(counts, low, high):
    ragged, lists = make(counts)
    assert lists_of(ragged) == lists
    assert lists_of(ragged[low:high]) == lists[low:high]
    assert ragged.counts.tolist() == counts
    assert ragged.owners.tolist() == [sample for sample, count in enumerate(counts) for _ in range(count)]


@given(COUNTS, st.lists(st.integers(-1, 7), max_size=9))
def test_picks_in_any_order_and_none(counts, samples):
    ragged, lists = make(counts)
    samples = [min(sample, len(counts) - 1) for sample in samples]
    picked = ragged.take(np.array(samples, np.int64))
    assert lists_of(picked) == [[] if sample < 0 else lists[sample] for sample in samples]


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_batches_join_sample_by_sample(parts):
    made = [make(counts) for counts in parts]
    joined = Ragged.cat([ragged for ragged, _ in made])
    assert lists_of(joined) == [part for _, lists in made for part in lists]
    assert lists_of(joined.to("cpu")) == lists_of(joined)


@pytest.mark.parametrize("starts", [[], [1, 3], [0, 2], [0, 2, 1, 3]])
def test_starts_that_do_not_fit_the_rows_are_refused(starts):
    with pytest.raises(ValueError, match="starts do not rise"):
        Ragged(torch.zeros(3, 4), np.array(starts, np.int64))


def test_a_step_in_a_slice_is_refused():
    with pytest.raises(ValueError, match="take"):
        make([1, 2])[0][::2]
