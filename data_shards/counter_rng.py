"""Counted randomness: every random number is a pure function of (seed, purpose, position).

No function draws "the next" number, so a run that resumes at any clock, on any number of ranks, sees the
same values. Hash: the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; constants of
Stafford's variant 13). Permutations: the generalised Feistel network with cycle walking of Black and Rogaway,
"Ciphers with arbitrary finite domains", CT-RSA 2002. For shuffling, not for secrets.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31, _S32 = (np.uint64(n) for n in (11, 27, 30, 31, 32))
# Rounds of the Feistel network: a domain smaller than _SMALL needs more to be mixed well (see the tests).
_ROUNDS, _SMALL_ROUNDS = 6, 12
_SMALL = 1024
_COUNTERS = np.arange(1, 13, dtype=np.uint64) << _S32  # keeps the rounds apart: halves are < 2^32


def mix(values: np.ndarray) -> np.ndarray:
    """Bijective avalanche hash of uint64, element by element."""
    values = values ^ (values >> _S30)
    values = values * _MIX1
    values ^= values >> _S27
    values *= _MIX2
    values ^= values >> _S31
    return values


def key(seed: int, *purpose: int | str) -> np.uint64:
    """The stream of a purpose, as in `key(seed, "augment", member)`: another purpose, another stream."""
    text = "\x00".join(f"{type(part).__name__}:{part}" for part in (seed, *purpose))
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def derive(stream: np.uint64 | np.ndarray, values: np.ndarray | np.integer) -> np.ndarray:
    """Sub-streams of `stream`, one for each integer in `values`: the vectorised form of `key`."""
    counters = np.atleast_1d(np.asarray(values)).astype(np.uint64)
    return mix(mix(counters * _GOLDEN + _GOLDEN) ^ np.asarray(stream, np.uint64))


def bits(stream: np.uint64 | np.ndarray, positions: np.ndarray, draws: int) -> np.ndarray:
    """uint64 [n, draws]: for each position the first `draws` outputs of a SplitMix64 generator of its own."""
    steps = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
    return mix(derive(stream, positions)[:, None] + steps)


def uniform(stream: np.uint64 | np.ndarray, positions: np.ndarray, draws: int) -> np.ndarray:
    """float64 [n, draws] in [0, 1): row i depends on `stream` and `positions[i]` alone."""
    return (bits(stream, positions, draws) >> _S11) * 2.0**-53


def normal(stream: np.uint64 | np.ndarray, positions: np.ndarray, draws: int) -> np.ndarray:
    """float64 [n, draws] of the standard normal distribution, counted as `uniform` (Box and Muller 1958)."""
    half = -(-draws // 2)
    pairs = uniform(stream, positions, 2 * half)
    length = np.sqrt(-2.0 * np.log1p(-pairs[:, :half]))
    angle = 2.0 * np.pi * pairs[:, half:]
    return np.concatenate([length * np.cos(angle), length * np.sin(angle)], axis=1)[:, :draws]


def permute(
    stream: np.uint64 | np.ndarray, indices: np.ndarray, size: int | np.integer | np.ndarray
) -> np.ndarray:
    """int64 [n]: where a pseudo-random bijection of [0, size) sends `indices`; O(n) time and memory.

    `stream` and `size` may be arrays [n]: the permutation of element i is then named by (stream[i], size[i]).
    Raises IndexError for an index outside [0, size).
    """
    indices = np.atleast_1d(np.asarray(indices, np.int64))
    if not len(indices):
        return indices.copy()
    sizes = np.broadcast_to(np.asarray(size, np.int64), indices.shape)
    if (indices < 0).any() or (indices >= sizes).any():
        raise IndexError(f"index outside [0, size): {indices.min()}..{indices.max()} for size {sizes.min()}")
    streams = np.broadcast_to(np.asarray(stream, np.uint64), indices.shape)
    limits = sizes.astype(np.uint64)
    small = sizes < _SMALL
    if small.all() or not small.any():
        rounds = _SMALL_ROUNDS if small[0] else _ROUNDS
        return _walk(streams, indices.astype(np.uint64), limits, rounds).astype(np.int64)
    out = np.empty_like(indices)
    for part, rounds in ((small, _SMALL_ROUNDS), (~small, _ROUNDS)):
        out[part] = _walk(streams[part], indices[part].astype(np.uint64), limits[part], rounds)
    return out


def _walk(streams: np.ndarray, values: np.ndarray, limits: np.ndarray, rounds: int) -> np.ndarray:
    # a x b is the smallest near-square domain that contains [0, size): few elements fall outside and walk on
    a = np.ceil(np.sqrt(limits)).astype(np.uint64)
    b = (limits + a - np.uint64(1)) // a
    out = _feistel(streams, values, a, b, rounds)
    outside = np.flatnonzero(out >= limits)
    while len(outside):
        out[outside] = _feistel(streams[outside], out[outside], a[outside], b[outside], rounds)
        outside = outside[out[outside] >= limits[outside]]
    return out


def _feistel(
    streams: np.ndarray, values: np.ndarray, a: np.ndarray, b: np.ndarray, rounds: int
) -> np.ndarray:
    left, right = values % a, values // a  # left in [0, a), right in [0, b)
    for number in range(rounds):
        noise = right + _COUNTERS[number]  # a shorter hash than `mix`: the rounds do the rest
        noise *= _GOLDEN
        noise ^= streams
        noise ^= noise >> _S32
        noise *= _MIX1
        noise >>= _S32
        noise += left
        noise %= b if number % 2 else a
        left, right = right, noise
    return left + a * right
