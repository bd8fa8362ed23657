"""Verification figures: scikit-learn as the oracle, closed forms, and the freedom from order and ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from hpc.metrics import roc
from hpc.metrics.pairs import all_pairs
from hpc.metrics.verification import bootstrap, cosine, measure, probability, score_pairs


def scored(
    seed: int, n: int = 400, *, ties: bool = False, shift: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = np.arange(n) < max(n // 4, 1)
    scores = rng.normal(size=n) + shift * same
    return (np.round(scores, 1) if ties else scores), same


def faces(
    seed: int = 0, people: int = 30, each: int = 5, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), each)
    centres = rng.normal(size=(people, 16))
    embeddings = centres[identity] + noise * rng.normal(size=(len(identity), 16))
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32), identity


@given(st.integers(0, 10_000), st.integers(8, 300), st.booleans(), st.floats(-1, 3))
@settings(max_examples=60, deadline=None)
def test_curve_and_area_equal_scikit_learn(seed, n, ties, shift):
    scores, same = scored(seed, n, ties=ties, shift=shift)
    curve = roc.rank(scores, same).roc()
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far, atol=1e-12)
    np.testing.assert_allclose(curve.tar, tar, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert roc.area(curve) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    for target in (0.5, 0.1, 0.03):
        accepted, threshold = roc.at_far(curve, target)
        assert accepted == pytest.approx(tar[far <= target].max())
        assert (scores[~same] >= threshold).mean() <= target + 1e-12
        assert (scores[same] >= threshold).mean() == pytest.approx(accepted)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_equal_error_lies_on_the_curve_of_scikit_learn(seed, ties):
    scores, same = scored(seed, ties=ties)
    rate, threshold = roc.equal_error(roc.rank(scores, same).roc())
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    assert rate == pytest.approx(np.interp(1.0, far + tar, far), abs=1e-9)  # far + tar rises along the curve
    if not ties:
        gap = (scores[~same] >= threshold).mean() - (scores[same] < threshold).mean()
        assert abs(gap) <= 1 / same.sum() + 1 / (~same).sum()


def test_equal_error_of_known_cases():
    same = np.array([True, True, False, False])
    perfect = roc.equal_error(roc.rank(np.array([4.0, 3.0, 2.0, 1.0]), same).roc())
    assert perfect == (0.0, 2.5)
    assert roc.equal_error(roc.rank(np.array([1.0, 2.0, 3.0, 4.0]), same).roc())[0] == 1.0
    assert roc.equal_error(roc.rank(np.array([3.0, 1.0, 2.0, 0.0]), same).roc())[0] == 0.5
    assert roc.equal_error(roc.rank(np.ones(4), same).roc())[0] == 0.5
    # 3 of 4 genuine and 1 of 4 impostors at or above 5: FAR = FRR = 1/4.
    quarter = np.array([9.0, 8, 7, 1, 6, 3, 2, 0])
    assert roc.equal_error(roc.rank(quarter, np.arange(8) < 4).roc())[0] == 0.25


def test_normal_scores_give_the_textbook_figures():
    """Two unit normals `d` apart: EER = Phi(-d/2), AUC = Phi(d/sqrt 2), d' = d."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(2.0, 1, 200_000), rng.normal(0, 1, 200_000)])
    same = np.arange(400_000) < 200_000
    curve = roc.rank(scores, same).roc()
    assert roc.equal_error(curve)[0] == pytest.approx(0.15866, abs=2e-3)
    assert roc.equal_error(curve)[1] == pytest.approx(1.0, abs=2e-2)
    assert roc.area(curve) == pytest.approx(0.92135, abs=2e-3)
    assert roc.separation(scores, same) == pytest.approx(2.0, abs=1e-2)


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="needs both classes: 0 genuine, 3 impostor"):
        roc.rank(np.arange(3.0), np.zeros(3, bool)).roc()


def test_weights_count_pairs_as_often():
    scores, same = scored(3, 60, ties=True)
    times = np.random.default_rng(1).integers(0, 4, 60)
    weighted = roc.rank(scores, same).roc(times)
    repeated = roc.rank(np.repeat(scores, times), np.repeat(same, times)).roc()
    assert roc.area(weighted) == pytest.approx(roc.area(repeated))
    assert roc.equal_error(weighted)[0] == pytest.approx(roc.equal_error(repeated)[0])


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_best_threshold_is_the_best_of_all(seed, balanced):
    scores, same = scored(seed, 60, ties=True, shift=0.5)
    found = roc.correct(scores, same, roc.best_threshold(scores, same, balanced=balanced), balanced=balanced)
    tried = [*scores, scores.max() + 1]
    assert found == pytest.approx(max(roc.correct(scores, same, t, balanced=balanced) for t in tried))


def test_fold_accuracy_takes_its_threshold_from_the_other_folds():
    """Fold 0 separates at 10, fold 1 at 0: each is judged by the other's threshold, so only half is right."""
    scores = np.array([11.0, 11, 9, 9, 1, 1, -1, -1])
    same = np.array([True, True, False, False] * 2)
    fold = np.repeat([0, 1], 4)
    np.testing.assert_array_equal(roc.fold_accuracy(scores, same, fold, balanced=False), [0.5, 0.5])
    alike = np.where(fold == 1, scores + 10, scores)
    np.testing.assert_array_equal(roc.fold_accuracy(alike, same, fold, balanced=True), [1.0, 1.0])
    assert len(roc.fold_accuracy(scores, same, np.full(8, -1), balanced=False)) == 0


def test_scores_do_not_depend_on_the_block_size(monkeypatch):
    embeddings, identity = faces()
    pairs = all_pairs(identity)
    whole = score_pairs(embeddings, pairs)
    monkeypatch.setattr("hpc.metrics.verification._BLOCK", 16 * 7)
    np.testing.assert_array_equal(score_pairs(embeddings, pairs), whole)
    a, b = embeddings[pairs.first].astype(np.float64), embeddings[pairs.second].astype(np.float64)
    np.testing.assert_allclose(whole, (a * b).sum(1), atol=1e-6)


def test_a_head_gives_its_probability_without_overflow():
    score = probability(np.array([-2.0, -1.0]), 0.5)
    a, b = np.array([[1.0, 0.0], [900.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(score(a, b), [1 / (1 + np.exp(2.5)), 0.0], atol=1e-12)
    assert cosine(np.zeros((1, 3)), np.ones((1, 3)))[0] == 0.0


def test_the_interval_is_counted_and_holds_the_figure():
    embeddings, identity = faces(noise=1.5)
    pairs = all_pairs(identity)
    scores = score_pairs(embeddings, pairs)
    verdict = measure(scores, pairs)
    found = bootstrap(scores, pairs, identity, rounds=200)
    assert found == bootstrap(scores, pairs, identity, rounds=200)
    assert found != bootstrap(scores, pairs, identity, rounds=200, seed=1)
    for name, value in (("eer", verdict.eer), ("auc", verdict.auc)):
        low, high = found[name]
        assert low < value < high
    assert found["eer"][1] - found["eer"][0] < 0.2


def test_intervals_by_people_are_wider_than_by_pairs():
    """Pairs of a person are alike: taking them for independent would promise too much."""
    embeddings, identity = faces(people=15, each=12, noise=1.5)
    pairs = all_pairs(identity)
    scores = score_pairs(embeddings, pairs)
    low, high = bootstrap(scores, pairs, identity, rounds=150)["auc"]
    ranking, rng = roc.rank(scores, pairs.same), np.random.default_rng(0)
    areas = [roc.area(ranking.roc(rng.poisson(1, len(scores)))) for _ in range(150)]
    naive = np.percentile(areas, [2.5, 97.5])
    assert high - low > 1.3 * (naive[1] - naive[0])
