"""Gaps between groups: intervals that hold for all pairs, the gate's power, small and absent groups."""

import numpy as np
import pytest

from hpc.metrics import bootstrap
from hpc.metrics.bootstrap import Figures, Measured, intervals, mean
from hpc.metrics.gaps import Split, lower_bound, split
from hpc.metrics.groups import Group, Groups


def mean_of(values: np.ndarray, name: str = "accuracy") -> Figures:
    return lambda rows, weight: {name: mean(values[rows], weight)}


def parted(values: np.ndarray, codes: np.ndarray, *, people: int = 1, rounds: int = 200, **keys) -> Split:
    group = Group(tuple("abcdefgh"[: codes.max() + 1]), codes)
    ids = np.arange(len(values))
    return split(mean_of(values), {"race": group}, ids, ids // people, rounds=rounds, **keys)["race"]


def test_a_gap_that_was_put_in_is_found_and_one_that_was_not_is_not():
    rng = np.random.default_rng(0)
    race = np.repeat([0, 1, 2], 300)
    for offset, wide in ((4.0, True), (0.0, False)):
        error = np.abs(rng.normal(0, 5, 900)) + offset * (race == 1)
        found = parted(error, race, people=3)
        assert found.samples.tolist() == [300, 300, 300]
        gap = found.gaps["accuracy"]
        means = [error[race == number].mean() for number in range(3)]
        assert gap.value == pytest.approx(np.ptp(means))
        assert (gap.high, gap.low) == ("abc"[np.argmax(means)], "abc"[np.argmin(means)])
        low, high = gap.interval
        assert low <= gap.value <= high
        assert (low > 2) is wide


def flagged(seed: int, gap: float, limit: float) -> bool:
    """Whether the lower bound of the gap of 3,000 images, 0.9 right, is beyond the limit: race, gender, both.

    A race of four, 750 images, is right less often by `gap`; a fifth one has 30 images.
    """
    rng = np.random.default_rng(seed)
    race, gender = rng.choice(5, 3000, p=[0.25, 0.25, 0.25, 0.24, 0.01]), rng.integers(0, 2, 3000)
    right = rng.random(3000) < 0.9 - gap * (race == 1)
    groups = Groups({"race": Group(tuple("abcde"), race), "gender": Group(("f", "m"), gender)}).crossed()
    ids = np.arange(3000)
    splits = split(mean_of(right), groups.columns, ids, ids, rounds=200, shares=("accuracy",))
    bound = lower_bound(splits, "accuracy")
    assert bound is not None
    return bound[0] > limit


def test_the_gate_finds_a_gap_in_19_of_20_sets_and_none_without_one_in_19_of_20():
    """The power depends on the size: measured with ages too, in 60 sets each, a gap of 0.25 in 2,000 images
    is found in 98 %, of 0.2 in 4,000 in 97 %. Of 300 sets without a gap 3 % have a lower bound above zero.
    """
    assert sum(flagged(seed, 0.25, 0.1) for seed in range(20)) >= 19
    assert sum(flagged(seed, 0.0, 0.1) for seed in range(20)) == 0
    assert sum(flagged(seed, 0.0, 0.01) for seed in range(20)) <= 1


def test_the_lower_bound_is_zero_where_there_is_no_gap():
    rng = np.random.default_rng(0)
    codes = np.arange(200) % 5
    held = [parted(rng.random(200) < 0.8, codes).gaps["accuracy"].interval[0] for _ in range(40)]
    assert held.count(0.0) >= 36  # percentiles of the resampled gaps hold it never: they are all larger


def test_a_few_right_answers_of_a_few_are_not_certain():
    """Ten of ten have no variance among resamples; a thousand of 1,250 are not ten of ten."""
    right = np.concatenate([np.arange(1250) % 5 > 0, np.ones(10, bool)])
    codes = np.repeat([0, 1], [1250, 10])
    gap = parted(right, codes, shares=("accuracy",)).gaps["accuracy"]
    assert gap.value == pytest.approx(0.2)
    assert gap.interval[0] == 0.0
    assert gap.interval[1] > 0.4
    one_person = np.concatenate([np.zeros(1250, int), np.ones(30, int)])
    units = np.concatenate([np.arange(1250), np.full(30, 5000)])
    wide = split(
        mean_of(np.concatenate([right[:1250], np.ones(30, bool)])),
        {"race": Group(("a", "b"), one_person)},
        np.arange(1280),
        units,
        rounds=200,
        shares=("accuracy",),
    )["race"].gaps
    assert "accuracy" not in wide or wide["accuracy"].interval == (0.0, 1.0)


def test_a_small_group_does_not_widen_the_bounds_of_large_ones():
    rng = np.random.default_rng(1)
    right = rng.random(2000) < 0.9 - 0.3 * (np.arange(2000) < 1000)
    codes = np.repeat([0, 1], 1000)
    alone = parted(right, codes, shares=("accuracy",)).gaps["accuracy"].interval[0]
    codes[:12] = 2
    beside = parted(right, codes, shares=("accuracy",)).gaps["accuracy"].interval[0]
    assert alone - beside < 0.03


@pytest.mark.parametrize("place", range(3))
def test_a_group_without_a_figure_takes_no_part_in_the_gap(place):
    codes = np.arange(60) % 3

    def figures(rows: np.ndarray, weight: np.ndarray) -> dict[str, Measured]:
        code = codes[rows[0]]
        value = np.nan if code == place else float(code)
        return {"x": Measured(np.full((1, weight.shape[1]), value), weight.sum(0)[None])}

    columns = {"race": Group(("a", "b", "c"), codes)}
    gap = split(figures, columns, np.arange(60), np.arange(60), rounds=5)["race"].gaps["x"]
    defined = [code for code in range(3) if code != place]
    assert gap.value == np.ptp(defined)
    assert gap.interval == (gap.value, gap.value)


def test_small_groups_are_shown_and_make_no_gap():
    codes = np.array([0] * 20 + [1] * 9 + [-1] * 5)
    ids = np.arange(34)
    columns = {"race": Group(("x", "y", "z"), codes)}
    found = split(mean_of(codes + 3.0), columns, ids, ids, rounds=0)["race"]
    assert (found.names, found.samples.tolist(), found.gaps) == (("x", "y"), [20, 9], {})
    assert [each["accuracy"] for each in found.figures] == [3, 4]
    assert (
        split(mean_of(codes + 3.0), columns, ids, ids, rounds=0, support=9)["race"].gaps["accuracy"].value
        == 1
    )
    assert lower_bound({"race": found}, "accuracy") is None


def test_images_of_one_person_make_intervals_wider_than_their_number_says():
    rng = np.random.default_rng(0)
    figures = mean_of(np.repeat(rng.normal(size=30), 20))
    alone = intervals(figures, np.arange(600), rounds=200)["accuracy"]
    people = intervals(figures, np.arange(600) // 20, rounds=200)["accuracy"]
    assert np.diff(people) > 2.5 * np.diff(alone)
    assert people == intervals(figures, np.arange(600) // 20, rounds=200)["accuracy"]


def test_rounds_are_the_same_however_they_are_cut_into_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=90)
    parts = {"all": np.arange(90), "some": np.arange(20, 60)}
    whole = bootstrap.resampled(mean_of(values), parts, np.arange(90) // 3, rounds=23)
    monkeypatch.setattr(bootstrap, "CELLS", 90 * 4)
    cut = bootstrap.resampled(mean_of(values), parts, np.arange(90) // 3, rounds=23)
    for name in parts:
        np.testing.assert_array_equal(whole[name]["accuracy"], cut[name]["accuracy"])
    assert whole["some"]["accuracy"].shape == (1, 23)
    assert len(np.unique(whole["some"]["accuracy"])) == 23
