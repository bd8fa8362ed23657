"""Figures of classes and values, and which labels make groups: scikit-learn as the oracle, then by hand."""

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
from hpc.metrics.groups import Groups, groups_of


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
    occur = each.support > 0
    np.testing.assert_allclose(each.f1[occur], wanted[2][occur])
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
    shards.labels["gender"] = np.full(8, -1, "i1")
    with pytest.raises(
        UserError, match="groups=gender: none of the 8 samples of shards/x has a known gender"
    ):
        groups_of(shards, ["gender"])
    with pytest.raises(UserError, match="groups=weight: its values make no groups"):
        groups_of(shards, ["weight"])


def test_two_labels_together_are_a_label_of_their_own():
    gender, race = Group(("f", "m"), np.array([0, 1, 1, -1])), Group(("a", "b"), np.array([1, 0, 1, 1]))
    crossed = Groups({"race": race, "gender": gender}).crossed().columns
    assert list(crossed) == ["race", "gender", "race x gender"]
    both = crossed["race x gender"]
    assert [both.names[code] if code >= 0 else "" for code in both.codes] == ["b x f", "a x m", "b x m", ""]
    many = Group(tuple(map(str, range(20))), np.arange(4))
    assert list(Groups({"one": many, "two": many}).crossed().columns) == ["one", "two"]


def test_a_bit_splits_a_set_where_it_is_named():
    fields = {"traits": Field("bits", "i1", (2,), names=("hat", "beard"))}
    labels = {"traits": np.array([[0, 1], [1, -1], [0, 0]], "i1"), "identity": np.arange(3)}
    shards = Labelled(schema=Schema(fields), labels=labels, identity_start=np.arange(4), folder="shards/x")
    assert groups_of(shards).columns == {}
    assert groups_of(shards, ["beard"]).columns["beard"].codes.tolist() == [1, -1, 0]
