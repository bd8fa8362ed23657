"""Pairs of an evaluation set: complete, distinct, bounded; and lists in LFW's format."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from hpc.metrics.pair_list import read_list, resolve
from hpc.metrics.pairs import _triangle, all_pairs

PEOPLE = {"Ann": 4, "Bob": 3, "Cy": 2}


@given(st.lists(st.integers(0, 6), min_size=4, max_size=40).filter(lambda x: 1 < len(set(x)) < len(x)))
@settings(max_examples=60, deadline=None)
def test_all_pairs_are_all_pairs(identity):
    identity = np.array(identity)
    pairs = all_pairs(identity)
    n = len(identity)
    found = {tuple(sorted(pair)) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert found == {(i, j) for j in range(n) for i in range(j)}
    assert len(pairs) == n * (n - 1) // 2
    np.testing.assert_array_equal(pairs.same, identity[pairs.first] == identity[pairs.second])
    assert (pairs.total_genuine, pairs.total_impostors) == (pairs.same.sum(), (~pairs.same).sum())


@given(st.integers(2, 60), st.integers(2, 9), st.integers(1, 200), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_bound_draws_distinct_pairs_of_both_kinds(people, each, cap, seed):
    identity = np.arange(people * each) % people
    pairs = all_pairs(identity, cap=cap, seed=seed)
    assert pairs.same.sum() == min(cap, pairs.total_genuine)
    assert (~pairs.same).sum() == min(cap, pairs.total_impostors)
    np.testing.assert_array_equal(pairs.same, identity[pairs.first] == identity[pairs.second])
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    assert (low < high).all()
    assert len(np.unique(low * len(identity) + high)) == len(pairs)
    again = all_pairs(identity, cap=cap, seed=seed)
    np.testing.assert_array_equal(pairs.first, again.first)


def test_a_drawn_subset_is_spread_over_the_people():
    identity = np.repeat(np.arange(400), 50)  # 490,000 genuine, 199 million impostor pairs
    pairs = all_pairs(identity, cap=20_000)
    assert len(pairs) == 40_000
    share = np.bincount(identity[pairs.first[~pairs.same]], minlength=400)
    assert share.sum() == 20_000
    assert (np.bincount(identity[pairs.first[pairs.same]], minlength=400) > 15).all()


def test_pair_numbers_far_out_are_exact():
    index = np.array([0, 1, 2, 3, 10**15, 10**15 + 1])
    i, j = _triangle(index)
    assert (i >= 0).all()
    assert (i < j).all()
    np.testing.assert_array_equal(j * (j - 1) // 2 + i, index)


def test_folds_split_people():
    identity = np.repeat(np.arange(25), 3)
    pairs = all_pairs(identity)
    assert set(pairs.fold.tolist()) == {-1, *range(10)}
    for number in range(10):
        inside = pairs.fold == number
        outside = (pairs.fold >= 0) & ~inside
        rows = [np.concatenate([pairs.first[part], pairs.second[part]]) for part in (inside, outside)]
        assert not set(identity[rows[0]]) & set(identity[rows[1]])
    assert (pairs.fold[pairs.same] >= 0).all()


@pytest.mark.parametrize(
    ("identity", "lacking"), [([1, 2, 3], "two images of one identity"), ([4, 4], "two identities")]
)
def test_too_few_people_are_named(identity, lacking):
    with pytest.raises(UserError, match=f"hold no {lacking}"):
        all_pairs(np.array(identity))


def find(name: str, number: int) -> int | None:
    return 10 * list(PEOPLE).index(name) + number if 1 <= number <= PEOPLE.get(name, 0) else None


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_official_format_with_folds_tabs_and_spaces(tmp_path):
    path = write(tmp_path / "pairs.txt", "2\t1", "Ann\t1\t2", "Ann\t1\tBob\t3", "", "Bob 1 3", "Cy 2 Ann 4")
    found = resolve(read_list(path).pairs, find, path=path, skip=False)
    assert (found.listed, found.absent) == (4, 0)
    assert found.pairs.fold.tolist() == [0, 0, 1, 1]
    assert found.pairs.same.tolist() == [True, False, True, False]
    ids = [(found.ids[a], found.ids[b]) for a, b in zip(found.pairs.first, found.pairs.second, strict=True)]
    assert ids == [(1, 2), (1, 13), (11, 13), (22, 4)]
    assert not found.pairs.balanced


def test_a_list_without_folds_is_cut_into_ten_blocks_of_each_kind(tmp_path):
    lines = ["20", *["Ann 1 2"] * 20, *["Ann 1 Bob 1"] * 20]
    folds = [pair.fold for pair in read_list(write(tmp_path / "pairs.txt", *lines)).pairs]
    assert folds == [number // 2 for number in range(20)] * 2


def test_absent_images_are_named_and_may_be_skipped(tmp_path):
    path = write(tmp_path / "pairs.txt", "2", "Ann 1 2", "Bob 1 9", "Ann 3 Cy 1", "Dan 1 Ann 1")
    listed = read_list(path).pairs
    with pytest.raises(UserError, match=r"first Bob/Bob_0009; only 2 of 4 pairs .* missing=skip") as caught:
        resolve(listed, find, path=path, skip=False)
    assert "\n" not in str(caught.value)
    found = resolve(listed, find, path=path, skip=True)
    assert (found.listed, found.absent, found.first_absent) == (4, 2, "Bob/Bob_0009")
    assert found.pairs.same.tolist() == [True, False]
    assert found.pairs.balanced  # what is left of a balanced list need not be


def test_nothing_usable_is_refused_also_when_skipping(tmp_path):
    none = write(tmp_path / "none.txt", "1", "Dan 1 2", "Dan 1 Eve 1")
    with pytest.raises(UserError, match=r"first Dan/Dan_0001; only 0 of 2 pairs are usable: give data="):
        resolve(read_list(none).pairs, find, path=none, skip=True)
    genuine = write(tmp_path / "genuine.txt", "1", "Ann 1 2", "Dan 1 Eve 1")
    with pytest.raises(UserError, match="only 1 of 2 pairs are usable, all genuine"):
        resolve(read_list(genuine).pairs, find, path=genuine, skip=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Ann 1 2"], "line 1: `Ann 1 2` is not `person/image"),
        (["1", "Ann 1 2"], "has 1 pairs, its first line says 2"),
        (["1", "Ann 1 2", "Ann one Bob 2"], "line 3: `Ann one Bob 2` is not a pair of two people"),
        (["1", "Ann 1 2", "", "Ann 1"], "line 4: `Ann 1` is not a pair"),
        (["1", "Ann 1 2", "Ann 1 3"], "line 3: .* is not a pair of two people"),
        (["1", "Ann 1 1", "Ann 1 Bob 2"], "line 2: .* pairs an image with itself"),
        (["1", "Ann 1 2", "Ann 1 Ann 2"], "line 3: .* names one person twice"),
        (["0", "Ann 1 2"], "line 1: `0` is neither"),
        (["0 300"], "line 1: `0 300` is neither"),
        (["1 0"], "line 1: `1 0` is neither"),
        (["²", "Ann 1 2", "Ann 1 Bob 2"], "line 1: `²` is neither"),
        (["9" * 5000], "line 1: `999.*` is neither"),
        (["1", "Ann 1 ²", "Ann 1 Bob 2"], "line 2: .* is not a pair"),
        (["1", f"Ann 1 {'9' * 5000}", "Ann 1 Bob 2"], "line 2: .* is not a pair"),
        (["", ""], "is empty"),
        (["a/1 a/2 1", "b/1 b/2 1"], "holds only pairs of one person"),
        (["a/1 a/2 1", "a/1 b/2 2"], "line 2: .* is not `person/image"),
        (["a/1 a/2 1", "a/1 2 0"], "line 2: .* without its person's folder"),
        (["a/1,a/2,1", 'a/1,"b/2,0'], "line 2: .* is not a line of CSV"),
        (["first,second,same"], "holds a header and no pairs"),
        (["a/1 a/2 1", "a/1 b/2\x07 0"], "line 2: .* control characters"),
    ],
)
def test_damaged_lists_are_refused(tmp_path, lines, message):
    with pytest.raises(UserError, match=message) as refused:
        read_list(write(tmp_path / "pairs.txt", *lines))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["x/Ann/Ann_0001.jpg Ann/Ann_0002.jpg 1", "Ann/Ann_0001 Bob/Bob_0003 0"], "paths"),
        (["x/Ann/Ann_0001.jpg\tAnn/Ann_0002.jpg\t1", "Ann/Ann_0001\tBob/Bob_0003\t0"], "paths"),
        (["x/Ann/Ann, 1.jpg\tAnn/Ann_0002.jpg\t1", "Ann/Ann, 1\tBob/Bob_0003\t0"], "paths"),
        (["x/Ann/Ann_0001.jpg,Ann/Ann_0002.jpg,1", '"Ann/Ann_0001",Bob/Bob_0003,0'], "CSV"),
        (
            ["first,second,same", "x/Ann/Ann_0001.jpg,Ann/Ann_0002.jpg,1", "Ann/Ann_0001, Bob/Bob_0003, 0"],
            "CSV",
        ),
    ],
)
def test_paths_and_csv_are_recognised(tmp_path, lines, kind):
    found = read_list(write(tmp_path / "list", *lines))
    assert found.format == kind
    ann = "Ann, 1" if "Ann, 1" in lines[0] else "Ann_0001"
    assert [(pair.first[0], pair.second[0], pair.same) for pair in found.pairs] == [
        (f"x/Ann/{ann}.jpg", "Ann/Ann_0002.jpg", True),
        (f"Ann/{ann}", "Bob/Bob_0003", False),
    ]
    assert [pair.line for pair in found.pairs] == ([2, 3] if "first" in lines[0] else [1, 2])


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing.txt does not exist"):
        read_list(tmp_path / "nothing.txt")
