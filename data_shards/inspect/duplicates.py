"""Images that show the same picture: found by their hashes, confirmed by their pixels, joined into clusters.

Two images are *exact* duplicates where all decoded pixels are equal, and *near* ones where their hashes
differ in few bits and their greys agree: what was encoded anew, resized, brightened, made grey, or cut by a
hundredth. An image without content is not a duplicate of anything. Measured on real faces: docs/data.md.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from data_shards.inspect.fingerprints import SIDE, Fingerprints, Progress, squeezed
from data_shards.inspect.near_hashes import distances, near_pairs
from data_shards.loading.reader import Reader
from data_shards.shard_format.manifest import read_manifest
from data_shards.shard_format.shard_set import ShardSet
from data_shards.workers import run_jobs

DISTANCE = 48  # of 256 bits that may differ
CORRELATION = 0.8  # of the greys, at least
_FINE, _COARSE = 0.7, 4.0  # pixels of SIDE: sigmas of the Gaussians between which details are compared
_PART = 256  # images that a worker decodes at a time


class Pair(NamedTuple):
    """Two images that show the same picture, by their numbers in all sets together."""

    first: int
    second: int
    distance: int  # bits in which the hashes differ
    correlation: float
    exact: bool


class Cluster(NamedTuple):
    """All images that are linked by pairs: numbers, rising, and the pairs."""

    members: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def exact(self) -> bool:
        """Whether all members have equal pixels."""
        return all(pair.exact for pair in self.pairs)

    @property
    def correlation(self) -> float:
        """The weakest of its links."""
        return min(pair.correlation for pair in self.pairs)


def find_duplicates(
    sets: Sequence[ShardSet],
    prints: Sequence[Fingerprints],
    usable: np.ndarray,
    *,
    distance: int = DISTANCE,
    correlation: float = CORRELATION,
    workers: int = 2,
    progress: Progress | None = None,
) -> list[Cluster]:
    """Find the clusters of the images of all sets, by their first members.

    usable: bool [all images]: which of them have content. Memory: 40 bytes an image, and 4 KB for each one
    that has a candidate.
    """
    numbers = np.flatnonzero(usable)
    hashes = np.concatenate([each.hashes for each in prints])[numbers]
    pairs = near_pairs(hashes, distance)
    apart = distances(hashes, pairs)
    pairs = numbers[pairs]
    involved = np.unique(pairs)
    greys, digests = _decode(sets, involved, workers=workers, progress=progress)
    details = _Details(greys)
    kept = []
    for low in range(0, len(pairs), 1 << 16):
        places = np.searchsorted(involved, pairs[low : low + (1 << 16)])
        alike = details.correlations(places)
        same = (digests[places[:, 0]] == digests[places[:, 1]]).all(axis=1)
        alike[same] = 1.0
        for at in np.flatnonzero(alike >= correlation).tolist():
            first, second = pairs[low + at].tolist()
            kept.append(Pair(first, second, int(apart[low + at]), round(float(alike[at]), 4), bool(same[at])))
    return clusters(kept)


def clusters(pairs: Sequence[Pair]) -> list[Cluster]:
    """Join pairs that share an image, by the first members."""
    root: dict[int, int] = {}

    def find(number: int) -> int:
        while root.setdefault(number, number) != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for pair in pairs:
        one, other = find(pair.first), find(pair.second)
        root[max(one, other)] = min(one, other)
    members: dict[int, list[int]] = {}
    links: dict[int, list[Pair]] = {}
    for number in sorted(root):
        members.setdefault(find(number), []).append(number)
    for pair in sorted(pairs):
        links.setdefault(find(pair.first), []).append(pair)
    return [Cluster(tuple(members[first]), tuple(links[first])) for first in sorted(members)]


class _Details:
    """Greys between two scales, of mean 0 and length 1: light and the coarse shape of a face do not count."""

    def __init__(self, greys: np.ndarray) -> None:
        """greys: uint8 [k, SIDE, SIDE]."""
        self._greys = greys

    def correlations(self, places: np.ndarray) -> np.ndarray:
        """The correlation of each pair [m, 2] of greys, [m] in -1..1."""
        rows, inverse = np.unique(places, return_inverse=True)
        vectors = np.stack([_vector(self._greys[row]) for row in rows.tolist()])
        first, second = inverse.reshape(places.shape).T
        return np.einsum("ij,ij->i", vectors[first], vectors[second]).astype(np.float64)


def _vector(grey: np.ndarray) -> np.ndarray:
    image = grey.astype(np.float32)
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (_FINE, _COARSE))
    detail = (fine - coarse).ravel()
    detail -= detail.mean()
    return detail / max(float(np.linalg.norm(detail)), 1e-6)


def _decode(
    sets: Sequence[ShardSet], involved: np.ndarray, *, workers: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """(greys uint8 [k, SIDE, SIDE], digests of the pixels u8 [k, 2]) of the images `involved` [k]."""
    ends = np.cumsum([0, *map(len, sets)])
    jobs, places = [], []
    for shards, start, end in zip(sets, ends, ends[1:], strict=False):
        low, high = np.searchsorted(involved, [start, end]).tolist()
        for first in range(low, high, _PART):
            last = min(first + _PART, high)
            jobs.append((shards.folder, involved[first:last] - start))
            places.append(slice(first, last))
    greys = np.empty((len(involved), SIDE, SIDE), np.uint8)
    digests = np.empty((len(involved), 2), "u8")
    done = 0
    for number, (part, hashed) in run_jobs(decode_part, jobs, workers=workers):
        greys[places[number]], digests[places[number]] = part, hashed
        done += len(part)
        if progress:
            progress(done, len(involved))
    return greys, digests


def decode_part(folder: Path, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decode rows [k] of a set whole: (greys uint8 [k, SIDE, SIDE], digests of the pixels u8 [k, 2])."""
    cv2.setNumThreads(1)
    reader = Reader(ShardSet(folder, *read_manifest(folder)))
    greys, digests = np.empty((len(ids), SIDE, SIDE), np.uint8), np.empty((len(ids), 2), "u8")
    try:
        for start in range(0, len(ids), 32):
            for at, jpeg in enumerate(reader.read(ids[start : start + 32]), start):
                image = simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=False)
                digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
                digest.update(image)
                digests[at] = np.frombuffer(digest.digest(), "u8")
                greys[at] = squeezed(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    finally:
        reader.close()
    return greys, digests
