"""All pairs of hashes that differ in few bits, without comparing every hash with every other.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast exact search in Hamming space", CVPR 2012): the bits
are dealt to bands, and only pairs are compared that are equal in all bits of some band but one. With bands as
wide as log2 of the number of hashes, each shares a band with few others. Bits that nearly all hashes agree in
tell nothing: bits are dealt to bands by how evenly they are set, those that say most first.
"""

from collections.abc import Iterator

import numpy as np

LEAST_BITS = 12  # of a band
_AT_ONCE = 1 << 21  # pairs that are compared at a time: bounds temporary memory


def distances(hashes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The number of bits in which the hashes u8 [n, words] of each of the pairs [m, 2] differ, int64 [m]."""
    apart = hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]
    return np.bitwise_count(apart).sum(axis=1, dtype=np.int64)


def near_pairs(hashes: np.ndarray, most: int) -> np.ndarray:
    """Pairs [m, 2] int64, first < second, sorted, whose hashes u8 [n, words] differ in at most `most` bits.

    Hashes that are equal are one here: the first of them stands for all, and each of the others is paired
    with it alone. Of 256 bits, a pair that differs in 32 is found with a chance of 99.9 % among 10,000
    hashes, 99.5 % among 200,000 and 97 % among a million; one that differs in 48 with 99, 82 and 63 %.
    """
    if not len(hashes):
        return np.empty((0, 2), np.int64)
    _, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    leader = first[inverse.reshape(-1)]
    others = np.flatnonzero(leader != np.arange(len(hashes)))
    equal = np.stack([leader[others], others], axis=1)
    rows = np.sort(first)
    different = rows[_near_among(hashes[rows], most)]
    pairs = np.concatenate([equal, different]).astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _near_among(hashes: np.ndarray, most: int) -> np.ndarray:
    found = [np.empty((0, 2), np.int64)]
    for band in _bands(hashes):
        for pairs in _candidates(hashes, band):
            near = pairs[distances(hashes, pairs) <= most]
            if len(near):
                found.append(np.sort(near, axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _bit(hashes: np.ndarray, bit: int) -> np.ndarray:
    return (hashes[:, bit // 64] >> np.uint64(bit % 64)) & np.uint64(1)


def _bands(hashes: np.ndarray) -> list[list[int]]:
    """Numbers of the bits of each band."""
    total = 64 * hashes.shape[1]
    width = min(32, max(LEAST_BITS, len(hashes).bit_length()))
    uneven = [abs(float(_bit(hashes, bit).mean()) - 0.5) for bit in range(total)]
    order = np.argsort(np.array(uneven), kind="stable").tolist()
    number = total // width
    return [order[band : number * width : number] for band in range(number)]


def _candidates(hashes: np.ndarray, band: list[int]) -> Iterator[np.ndarray]:
    """Pairs [k, 2] that are equal in all bits of the band, or in all but one; each pair once."""
    keys = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(band):
        keys |= _bit(hashes, bit) << np.uint64(place)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    stop = np.searchsorted(ordered, ordered, "right")
    yield from _products(order, np.arange(len(order)) + 1, stop, order)
    for place in range(len(band)):
        flip = np.uint64(1 << place)
        zero = order[(ordered & flip) == 0]
        partner = keys[zero] | flip
        start, stop = (np.searchsorted(ordered, partner, side) for side in ("left", "right"))
        yield from _products(zero, start, stop, order)


def _products(
    rows: np.ndarray, start: np.ndarray, stop: np.ndarray, order: np.ndarray
) -> Iterator[np.ndarray]:
    """Pairs of rows[i] with each of order[start[i]:stop[i]], some of them at a time."""
    counts = np.maximum(stop - start, 0)
    ends = np.cumsum(counts)
    low = 0
    while low < len(rows):
        before = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + _AT_ONCE, "right")))
        part = counts[low:high]
        if total := int(part.sum()):
            inside = np.arange(total) - np.repeat(np.cumsum(part) - part, part)
            partners = order[np.repeat(start[low:high], part) + inside]
            yield np.stack([np.repeat(rows[low:high], part), partners], axis=1)
        low = high
