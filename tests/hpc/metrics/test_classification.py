"""Figures of classes, values and groups: scikit-learn as the oracle, then what has a closed form."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from data_shards.errors import UserError
from data_shards.inspect.groups import BANDS, Group
from data_shards.shard_format.schema import Field, Schema
from hpc.metrics import classification, regression
from hpc.metrics.groups import groups_of, intervals, split


def drawn(seed: int, n: int = 200, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels], labels


@given(st.integers(0, 1000), st.integers(20, 200), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_figures_of_classes_equal_scikit_learn(seed, n, k):
    logits, labels = drawn(seed, n, k)
    predicted = logits.argmax(1)
    weight = np.random.default_rng(seed).integers(0, 3, n).astype(float)
    weight[0] = 1
    counts = classification.confusion(labels, predicted, k, weight)
    np.testing.assert_array_equal(
        counts, oracle.confusion_matrix(labels, predicted, labels=range(k), sample_weight=weight)
    )
    each = classification.per_class(counts)
    wanted = oracle.precision_recall_fscore_support(
        labels, predicted, labels=range(k), sample_weight=weight, zero_division=np.nan
    )
    for mine, theirs in zip(
        (each.precision, each.recall, each.support), (*wanted[:2], wanted[3]), strict=True
    ):
        np.testing.assert_allclose(mine, theirs)
    found = classification.summary(counts)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted, sample_weight=weight))
    occur = each.support > 0
    np.testing.assert_allclose(each.f1[occur], wanted[2][occur])
    assert found["balanced_accuracy"] == pytest.approx(each.recall[occur].mean())
    assert classification.log_loss(logits, labels) == pytest.approx(
        oracle.log_loss(labels, classification.softmax(logits), labels=range(k))
    )


def test_the_temperature_is_the_best_of_all_and_heals_a_network_that_is_too_sure():
    logits, labels = drawn(0, 4000)
    calibrated = logits * 1.5  # of unit normals 1.5 apart the log odds are 1.5 times the difference
    best = classification.best_temperature(4 * calibrated, labels)
    assert best == pytest.approx(4, rel=0.1)
    losses = [classification.log_loss(4 * calibrated, labels, best * factor) for factor in (0.97, 1, 1.03)]
    assert min(losses) == losses[1]
    sure = [classification.softmax(4 * calibrated, each) for each in (1.0, best)]
    right = logits.argmax(1) == labels
    before, after = (classification.calibration_error(part.max(1), right) for part in sure)
    assert after < 0.03 < 0.15 < before


def test_a_calibration_error_by_hand():
    confidence, right = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])
    assert classification.calibration_error(confidence, right, bins=10) == pytest.approx(0.1)
    assert np.isnan(classification.calibration_error(np.zeros(0), np.zeros(0, bool)))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_errors_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth, weight = rng.uniform(0, 90, 50), rng.integers(0, 3, 50).astype(float) + 1
    predicted = truth + rng.normal(2, 5, 50)
    found = regression.errors(predicted, truth, weight)
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(truth, predicted, sample_weight=weight))
    assert found["rmse"] == pytest.approx(
        oracle.root_mean_squared_error(truth, predicted, sample_weight=weight)
    )
    assert found["r2"] == pytest.approx(oracle.r2_score(truth, predicted, sample_weight=weight))
    assert found["bias"] == pytest.approx(np.average(predicted - truth, weights=weight))
    assert np.isnan(list(regression.errors(np.zeros(0), np.zeros(0)).values())).all()


def test_a_gap_that_was_put_in_is_found_and_one_that_was_not_is_not():
    rng = np.random.default_rng(0)
    ids, race = np.arange(900), np.repeat([0, 1, 2], 300)
    group = Group(("a", "b", "c"), race)
    people = ids // 3
    for offset, wide in ((4.0, True), (0.0, False)):
        error = np.abs(rng.normal(0, 5, 900)) + offset * (race == 1)

        def figures(weight: np.ndarray, error: np.ndarray = error) -> dict[str, float]:
            return {"mae": float(weight @ error / weight.sum()) if weight.sum() else np.nan}

        parts = split(figures, group, ids, people, rounds=200)
        assert parts.names == ("a", "b", "c")
        assert parts.samples.tolist() == [300, 300, 300]
        assert parts.gaps["mae"] == pytest.approx(
            np.ptp([error[race == number].mean() for number in range(3)])
        )
        low, high = parts.gap_intervals["mae"]
        assert low <= parts.gaps["mae"] <= high
        assert (low > 2) is wide


def test_the_interval_of_a_gap_holds_the_true_gap_where_there_is_none():
    rng, held = np.random.default_rng(0), 0
    group = Group(tuple("abcde"), np.arange(200) % 5)
    for _ in range(40):
        right = rng.random(200) < 0.8

        def figures(weight: np.ndarray, right: np.ndarray = right) -> dict[str, float]:
            return {"accuracy": float(weight @ right / weight.sum()) if weight.sum() else np.nan}

        parts = split(figures, group, np.arange(200), np.arange(200), rounds=60)
        held += parts.gap_intervals["accuracy"][0] == 0.0
    assert held >= 34  # percentiles of the resampled gaps hold it never: they are all larger


@pytest.mark.parametrize("place", range(3))
def test_a_group_without_a_figure_takes_no_part_in_the_gap(place):
    codes = np.arange(60) % 3

    def figures(weight: np.ndarray) -> dict[str, float]:
        code = codes[weight > 0][0]
        return {"x": np.nan if code == place else float(code)}

    parts = split(figures, Group(("a", "b", "c"), codes), np.arange(60), np.arange(60), rounds=5)
    defined = [code for code in range(3) if code != place]
    assert parts.gaps == {"x": float(np.ptp(defined))}
    assert parts.gap_intervals == {"x": (parts.gaps["x"], parts.gaps["x"])}


def test_small_groups_are_shown_and_make_no_gap():
    codes = np.array([0] * 20 + [1] * 9 + [-1] * 5)

    def figures(weight: np.ndarray) -> dict[str, float]:
        return {"share": float(weight.sum())}

    parts = split(figures, Group(("x", "y"), codes), np.arange(34), np.arange(34), rounds=0)
    assert (parts.names, parts.samples.tolist(), parts.gaps) == (("x", "y"), [20, 9], {})
    assert [each["share"] for each in parts.figures] == [20, 9]


def test_images_of_one_person_make_intervals_wider_than_their_number_says():
    rng = np.random.default_rng(0)
    person = np.repeat(rng.normal(size=30), 20)

    def figures(weight: np.ndarray) -> dict[str, float]:
        return {"mean": float(weight @ person / weight.sum())}

    alone = intervals(figures, np.arange(600), rounds=200)["mean"]
    people = intervals(figures, np.arange(600) // 20, rounds=200)["mean"]
    assert np.diff(people) > 2.5 * np.diff(alone)
    assert people == intervals(figures, np.arange(600) // 20, rounds=200)["mean"]


class Labelled(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.labels["identity"])


def test_labels_that_split_a_set():
    fields = {
        "age": Field("value", "i4"),
        "gender": Field("class", "i1", names=("man", "woman")),
        "race": Field("value", "i4"),
        "weight": Field("value", "f4"),
    }
    labels = {
        "age": np.array([0, 2, 3, 69, 70, 116, -1, 25], "i4"),
        "gender": np.array([0, 1, 0, 1, -1, 0, 1, 0], "i1"),
        "race": np.array([4, 7, 4, 7, 7, 9, -1, 4], "i4"),
        "weight": np.linspace(0, 1, 8, dtype="f4"),
        "identity": np.arange(8) // 2,
    }
    shards = Labelled(schema=Schema(fields), labels=labels, identity_start=np.arange(5), folder="shards/x")
    groups = groups_of(shards)
    assert groups.columns.keys() == {"age", "gender", "race"}
    ages = groups.columns["age"]
    assert len(ages.names) == len(BANDS)
    assert [ages.names[code] if code >= 0 else "" for code in ages.codes] == [
        "0-2", "0-2", "3-9", "60-69", "70+", "70+", "", "20-29",
    ]  # fmt: skip
    assert groups.columns["race"].names == ("4", "7", "9")
    assert groups.columns["race"].codes.tolist() == [0, 1, 0, 1, 1, 2, -1, 0]
    assert groups.units_of(np.array([1, 4])).tolist() == [0, 2]
    assert groups_of(shards, ["race"]).columns.keys() == {"race"}
    shards.labels["identity"] = np.array([0, 0, 1, 1, -1, -1, -1, -1])
    shards.identity_start = np.arange(3)
    assert len(np.unique(groups_of(shards).units_of(np.arange(8)))) == 6  # each unknown one is somebody else
    with pytest.raises(UserError, match="groups=rase: shards/x has no such label, only age, gender, race"):
        groups_of(shards, ["rase"])
    with pytest.raises(UserError, match="groups=weight: its values make no groups"):
        groups_of(shards, ["weight"])
