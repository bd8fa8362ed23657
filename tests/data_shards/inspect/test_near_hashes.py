"""Pairs of near hashes: none is invented, and those of few bits are all found."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.inspect.near_hashes import distances, near_pairs


def planted(seed: int, count: int, *, uneven: float) -> np.ndarray:
    """Hashes [count, 4] of bits that are set with other chances each; every third is a flipped neighbour."""
    rng = np.random.default_rng(seed)
    chances = np.clip(rng.normal(0.5, uneven, 256), 0.02, 0.98)
    bits = rng.random((count, 256)) < chances
    for row in range(2, count, 3):
        bits[row] = bits[row - 1]
        bits[row, rng.choice(256, row % 40, replace=False)] ^= True
    return np.packbits(bits, axis=1).view("u8")


def brute(hashes: np.ndarray, most: int) -> set[tuple[int, int]]:
    pairs = np.stack(np.triu_indices(len(hashes), 1), axis=1)
    return set(map(tuple, pairs[distances(hashes, pairs) <= most].tolist()))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 300), st.sampled_from([0.0, 0.25]), st.sampled_from([0, 12, 39]))
def test_they_are_those_of_a_full_comparison(seed, count, uneven, most):
    hashes = planted(seed, count, uneven=uneven)
    found = near_pairs(hashes, most)
    assert found.tolist() == sorted(found.tolist())
    pairs, wanted = set(map(tuple, found.tolist())), brute(hashes, most)
    assert len(pairs) == len(found)
    assert pairs <= wanted
    # the others have an equal hash that stands for them, or are among the few beyond reach
    leaders = {tuple(row): place for place, row in reversed(list(enumerate(hashes.tolist())))}
    leader = [leaders[tuple(row)] for row in hashes.tolist()]
    lost = {tuple(sorted((leader[one], leader[other]))) for one, other in wanted - pairs}
    lost -= pairs | {(one, one) for one in range(count)}
    assert all(distances(hashes, np.array([pair]))[0] > 30 for pair in lost)
    assert len(lost) <= len(wanted) // 20


def test_equal_hashes_are_paired_with_their_first_alone():
    hashes = planted(1, 30, uneven=0.1)
    many = np.concatenate([hashes[[5] * 1000], hashes[:5]])
    found = near_pairs(many, 0)
    assert found.tolist() == [[0, other] for other in range(1, 1000)]


def test_a_thousand_times_as_many_hashes_are_not_compared_one_by_one(monkeypatch):
    """20,000 hashes are 200 million pairs: fewer than a twentieth of them is looked at."""
    from data_shards.inspect import near_hashes

    compared = []
    whole = near_hashes.distances
    monkeypatch.setattr(
        near_hashes, "distances", lambda hashes, pairs: (compared.append(len(pairs)), whole(hashes, pairs))[1]
    )
    hashes = planted(2, 20_000, uneven=0.2)
    found = {tuple(pair) for pair in near_pairs(hashes, 39).tolist()}
    wanted = {(row - 1, row) for row in range(2, 20_000, 3) if row % 40 <= 32}
    assert len(wanted - found) <= len(wanted) // 200
    assert sum(compared) < 10_000_000
