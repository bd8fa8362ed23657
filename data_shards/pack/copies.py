"""Copies of one file stay in one set: what nobody's name holds together, its bytes do.

The images of a person are never divided; those of unknown people are divided by the hash of their paths, and
a data set may hold one photograph twice, under two names.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data_shards.pack.layout import is_unknown
from data_shards.sources.base import Sample, Source

READERS = 8  # threads


def with_copies_together(
    source: Source, identities: Mapping[str, Sequence[Sample]]
) -> dict[str, list[Sample]]:
    """Return the identities with a group for images of unknown people whose bytes are equal.

    The group is named after the first of their paths. Only files of equal size are read; a sample that has
    a group or an official split keeps it, and one that cannot be read is left to the packer.
    """
    alike: dict[int, list[str]] = {}
    for name, members in identities.items():
        sample = members[0]
        alone = is_unknown(name) or not source.cluster
        if alone and sample.num_bytes and not (sample.group or sample.split):
            alike.setdefault(sample.num_bytes, []).append(name)
    names = [name for several in alike.values() if len(several) > 1 for name in several]
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(lambda name: _digest(source, identities[name][0]), names))
    copies: dict[bytes, list[str]] = {}
    for name, digest in zip(names, digests, strict=True):
        if digest:
            copies.setdefault(digest, []).append(name)
    grouped = {name: list(members) for name, members in identities.items()}
    for several in copies.values():
        first = min(identities[name][0].path for name in several)
        for name in several if len(several) > 1 else ():
            grouped[name] = [identities[name][0]._replace(group=first)]
    return grouped


def _digest(source: Source, sample: Sample) -> bytes:
    """Return the sha256 of a sample's file; empty if it cannot be read."""
    try:
        content = source.read(sample)
    except (OSError, ValueError):
        return b""
    image = content["image"] if isinstance(content, Mapping) else content
    return hashlib.sha256(image.tobytes() if isinstance(image, np.ndarray) else image).digest()
