"""Figures of generated images: scipy and scikit-learn as oracles, the formulas written out, closed forms."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from hpc.metrics.generated import (
    Moments,
    frechet,
    inception_score,
    kid,
    moments,
    neighbours,
    precision_recall,
)


def features(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    """Correlated rows, float32 as a network gives them."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 0.3 + shift).astype(np.float32)


def closed_form(one: np.ndarray, other: np.ndarray) -> float:
    """Heusel et al. 2017, equation 6, with scipy's root of a matrix."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    shift = one.mean(0) - other.mean(0)
    return float(shift @ shift + np.trace(first + second - 2 * np.real(root)))


@given(st.integers(0, 500), st.integers(2, 40), st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_frechet_distance_equals_the_closed_form_with_scipys_root(seed, d, shift):
    one, other = features(seed, 300, d), features(seed + 1, 250, d, shift)
    found = frechet(moments(one), moments(other))
    assert found == pytest.approx(closed_form(one, other), rel=1e-6)
    assert found == pytest.approx(frechet(moments(other), moments(one)), rel=1e-9)


def test_frechet_distance_of_many_features():
    one, other = features(1, 1500, 512), features(2, 1200, 512, 0.1)
    assert frechet(moments(one), moments(other)) == pytest.approx(closed_form(one, other), rel=1e-6)


def test_frechet_distance_of_normal_distributions_that_commute():
    """Of diagonal covariances it is |m1 - m2|^2 + sum (s1 - s2)^2; rank-deficient ones do not disturb it."""
    scales = np.array([[3.0, 2.0, 0.0, 1e-3], [1.0, 0.0, 0.5, 2e-3]])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    one, other = (
        Moments(9, np.full(4, m), turn @ np.diag(s**2) @ turn.T) for m, s in zip((0, 2), scales, strict=True)
    )
    assert frechet(one, other) == pytest.approx(16 + ((scales[0] - scales[1]) ** 2).sum(), rel=1e-9)
    assert frechet(one, one) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_fewer_images_than_features():
    """The trace of the root is then the nuclear norm of the products of centred rows."""
    one, other = features(3, 20, 64).astype(np.float64), features(4, 30, 64).astype(np.float64)
    a, b = one - one.mean(0), other - other.mean(0)
    root = np.linalg.norm(a @ b.T, "nuc") / np.sqrt(19 * 29)
    wanted = ((one.mean(0) - other.mean(0)) ** 2).sum() + (a**2).sum() / 19 + (b**2).sum() / 29 - 2 * root
    assert frechet(moments(one), moments(other)) == pytest.approx(wanted, rel=1e-6)


def test_moments_are_those_of_numpy_and_need_two_rows():
    rows = features(5, 40, 6)
    found = moments(rows)
    np.testing.assert_allclose(found.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10)
    assert found.count == 40
    with pytest.raises(ValueError, match="two rows at least"):
        moments(rows[:1])


def test_kid_equals_the_sum_over_all_pairs():
    one, other = features(6, 12, 5), features(7, 12, 5, 0.5)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x.astype(np.float64) @ y.astype(np.float64) / 5 + 1) ** 3)

    pairs = [(i, j) for i in range(12) for j in range(12)]
    inside = [sum(kernel(rows[i], rows[j]) for i, j in pairs if i != j) / (12 * 11) for rows in (one, other)]
    wanted = sum(inside) - 2 * sum(kernel(one[i], other[j]) for i, j in pairs) / 144
    mean, deviation = kid(one, other, subsets=3, size=1000)  # each subset is all of the rows
    assert mean == pytest.approx(wanted, rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-9)


def test_kid_has_no_bias_and_its_subsets_are_drawn_by_seed():
    rng = np.random.default_rng(8)
    one, other = rng.normal(size=(900, 4)), rng.normal(size=(900, 4))
    means = [kid(one, other, subsets=40, size=50, seed=seed) for seed in (0, 0, 1)]
    assert means[0] == means[1]
    assert means[0] != means[2]
    assert abs(means[0][0]) < 3 * means[0][1] / np.sqrt(40) + 0.01
    assert kid(one, other + 1.0, subsets=40, size=50)[0] > 1
    with pytest.raises(ValueError, match="two rows"):
        kid(one[:1], other)


@given(st.integers(0, 300), st.integers(8, 60), st.integers(8, 60))
@settings(max_examples=15, deadline=None)
def test_precision_and_recall_equal_spheres_of_scikit_learn(seed, n, m):
    real, fake = features(seed, n, 3), features(seed, m, 3, 0.3)

    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        search = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(centres.astype(np.float64))
        radius = search.kneighbors()[0][:, 2]  # without the row itself: its third neighbour
        far = np.linalg.norm(points[:, None].astype(np.float64) - centres[None], axis=2)
        return float((far <= radius * (1 + 1e-9)).any(1).mean())

    found = precision_recall(real, fake)
    assert found == pytest.approx((covered(fake, real), covered(real, fake)))


def test_precision_and_recall_where_they_are_known():
    rng = np.random.default_rng(9)
    near, two = rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    two[:100] += 100  # of two heaps the generator knows one
    assert precision_recall(two, near)[1] == pytest.approx(0.5, abs=0.06)
    assert precision_recall(near, near + 1000) == (0.0, 0.0)
    assert precision_recall(near, near) == (1.0, 1.0)
    with pytest.raises(ValueError, match="more than 3"):
        precision_recall(near[:3], two)


def test_inception_score_equals_scipys_entropy_and_its_limits():
    rng = np.random.default_rng(10)
    rows = rng.dirichlet(np.ones(7), size=60)
    parts = [
        np.exp(scipy.stats.entropy(part.T, part.mean(0)[:, None]).mean()) for part in rows.reshape(4, 15, 7)
    ]
    assert inception_score(rows, splits=4) == pytest.approx((np.mean(parts), np.std(parts)))
    assert inception_score(np.eye(7).repeat(3, 0), splits=1) == pytest.approx((7.0, 0.0))
    assert inception_score(np.full((9, 7), 1 / 7)) == pytest.approx((1.0, 0.0))
    with pytest.raises(ValueError, match="an image at least"):
        inception_score(np.zeros((0, 7)))


def test_neighbours_are_those_of_scikit_learn_and_the_first_of_equal_ones():
    queries, references = features(11, 30, 6), features(12, 80, 6)
    wanted, rows = NearestNeighbors(n_neighbors=3).fit(references).kneighbors(queries)
    found, far = neighbours(queries, references)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(far, wanted, rtol=1e-4)
    twice, _ = neighbours(queries[:1], np.repeat(queries[:1], 4, 0), count=9)
    assert twice.tolist() == [[0, 1, 2, 3]]
