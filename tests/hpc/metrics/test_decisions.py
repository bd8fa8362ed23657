"""Figures of decisions in many resamples: scikit-learn and fairlearn as oracles, round by round."""

import warnings

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from sklearn import metrics as oracle

from hpc.metrics import bootstrap, roc
from hpc.metrics.classification import softmax
from hpc.metrics.decisions import ODDS, PARITY, BitFigures, ClassFigures
from hpc.metrics.gaps import split
from hpc.metrics.groups import Group


def drawn(seed: int, n: int = 240, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return (rng.normal(size=(n, k)) + 1.2 * np.eye(k)[labels]).astype(np.float32), labels


def repeated(weight: np.ndarray) -> np.ndarray:
    """The rows of a resample, each as often as it was drawn."""
    return np.repeat(np.arange(len(weight)), weight.astype(int))


@pytest.mark.parametrize(("seed", "k"), [(0, 2), (1, 3), (2, 6)])
def test_classes_equal_scikit_learn_in_each_round(seed, k):
    logits, labels = drawn(seed, k=k)
    predicted = logits.argmax(1)
    predicted[:5] = labels[:5] = 0
    rows = np.arange(5, 240)
    weight = bootstrap.weights(np.arange(240), slice(3, 8))[rows]
    found = ClassFigures(labels, predicted, k, logits)(rows, weight)
    for number in range(weight.shape[1]):
        again = rows[repeated(weight[:, number])]
        truth, guess = labels[again], predicted[again]
        shares = softmax(logits[again])
        wanted = {
            "accuracy": oracle.accuracy_score(truth, guess),
            "balanced_accuracy": oracle.balanced_accuracy_score(truth, guess),
            "macro_f1": oracle.f1_score(truth, guess, average="macro"),
            "auc": oracle.roc_auc_score(truth, shares[:, 1] if k == 2 else shares, multi_class="ovr"),
        }
        for name, value in wanted.items():
            assert found[name].values[0, number] == pytest.approx(value, abs=1e-6), name


def test_a_class_that_is_predicted_and_does_not_occur_counts_as_scikit_learn_counts_it():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    found = bootstrap.flat(ClassFigures(labels, predicted, 4), np.arange(4))
    assert found["macro_f1"].values[0, 0] == pytest.approx(
        oracle.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["balanced_accuracy"].values[0, 0] == oracle.balanced_accuracy_score(labels, predicted)
    assert "auc" not in found


@pytest.mark.parametrize("levels", [3, 40, 10**6])
def test_areas_equal_scikit_learn_with_ties_and_weights(levels):
    rng = np.random.default_rng(levels)
    for share in (0.1, 0.9):
        same = rng.random(150) < share
        scores = rng.integers(0, levels, 150) + same * levels / 5
        weight = rng.integers(0, 4, (150, 6)).astype(np.float32)
        found = roc.areas(scores, same, weight)
        assert found == pytest.approx(
            [oracle.roc_auc_score(same, scores, sample_weight=weight[:, each]) for each in range(6)]
        )
        assert roc.areas(scores, same, np.ones((150, 1), np.float32))[0] == pytest.approx(
            roc.area(roc.rank(scores, same).roc())
        )
    assert np.isnan(roc.areas(scores, np.ones(150, bool), weight)).all()


def test_bits_equal_scikit_learn_and_leave_out_the_unknown():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (200, 3))
    known = rng.random((200, 3)) < 0.8
    logits = (rng.normal(size=(200, 3)) + labels).astype(np.float32)
    weight = bootstrap.weights(np.arange(200), slice(0, 2))
    each = BitFigures(known, labels == 1, logits).each(np.arange(200), weight)
    for bit in range(3):
        again = repeated(weight[:, 1] * known[:, bit])
        truth, guess = labels[again, bit], (logits[again, bit] > 0).astype(int)
        wanted = {
            "accuracy": oracle.accuracy_score(truth, guess),
            "balanced_accuracy": oracle.balanced_accuracy_score(truth, guess),
            "precision": oracle.precision_score(truth, guess),
            "recall": oracle.recall_score(truth, guess),
            "f1": oracle.f1_score(truth, guess),
            "auc": oracle.roc_auc_score(truth, logits[again, bit]),
            "majority": max(truth.mean(), 1 - truth.mean()),
        }
        for name, value in wanted.items():
            assert each[name][bit, 1] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("k", [2, 3])
def test_fairness_equals_fairlearn(k):
    logits, labels = drawn(k, n=900, k=k)
    logits[::3, 0] += 0.8
    predicted, codes = logits.argmax(1), np.arange(900) % 3
    columns = {"race": Group(("a", "b", "c"), codes)}
    figures = ClassFigures(labels, predicted, k)
    gaps = split(figures, columns, np.arange(900), np.arange(900), rounds=0)["race"].gaps
    classes = range(k) if k > 2 else (1,)  # of two classes each says it all
    wanted = [
        function(labels == each, predicted == each, sensitive_features=codes)
        for function in (equalized_odds_difference, demographic_parity_difference)
        for each in classes
    ]
    assert gaps[ODDS].value == pytest.approx(max(wanted[: len(classes)]))
    assert gaps[PARITY].value == pytest.approx(max(wanted[len(classes) :]))
    bits = BitFigures(np.ones((900, 1), bool), labels[:, None] == 1, logits[:, 1:2])
    found = split(bits, columns, np.arange(900), np.arange(900), rounds=0)["race"].gaps
    assert found[ODDS].value == pytest.approx(
        equalized_odds_difference(labels == 1, logits[:, 1] > 0, sensitive_features=codes)
    )
