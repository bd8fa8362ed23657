"""Audit packed sets: what is on both sides of a split, twice, contradictory, or not worth training on.

The steps are files of their own: `leaks.py` (names), `fingerprints.py` (one look at every image),
`duplicates.py`, `contradictions.py`. How it is printed: launch/commands/audit_data.py; drawn: `sheets.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.inspect.contradictions import TOLERANCE, find_contradictions
from data_shards.inspect.duplicates import CORRELATION, DISTANCE, Cluster, find_duplicates
from data_shards.inspect.findings import KINDS, Finding, Sets, by_kind
from data_shards.inspect.fingerprints import Fingerprints, Progress, fingerprint_sets
from data_shards.inspect.groups import group_of
from data_shards.inspect.leaks import find_shared
from data_shards.shard_format.shard_set import ShardSet

Bar = Callable[[str], AbstractContextManager[Progress | None]]  # (what is done) -> what moves its bar


@dataclass(frozen=True)
class Limits:
    """What counts as found."""

    distance: int = DISTANCE  # bits of 256 in which the hashes of near duplicates may differ
    correlation: float = CORRELATION  # of their greys, at least
    tolerance: float = TOLERANCE  # of a label's range that numbers of one picture may differ by
    tiny: int = 32  # pixels of the shorter side below which an image is tiny
    sharp: float = 15.0  # variance of the Laplacian below which an image is blurred
    empty: float = 5.0  # standard deviation of greys below which an image has no content


@dataclass
class Audit:
    """What an audit found."""

    sets: Sets
    limits: Limits
    findings: list[Finding]
    balance: dict[str, dict[str, list[int]]]  # {label: {group: images of it in each set}}
    clusters: list[Cluster] = field(default_factory=list)

    @property
    def leaks(self) -> int:
        """How many findings are on both sides of a split."""
        return sum(finding.leaks for finding in self.findings)

    def counts(self) -> list[tuple[str, int, int, int, int]]:
        """(kind, findings, images in them, findings in several sets, leaks) of every kind, found or not."""
        rows = []
        for kind in KINDS:
            found = [finding for finding in self.findings if finding.kind == kind]
            images = len({number for finding in found for number in finding.members})
            across = sum(self.sets.are_across(finding.members) for finding in found)
            rows.append((kind, len(found), images, across, sum(finding.leaks for finding in found)))
        return rows

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON; the worst of each kind come first."""
        return {
            "sets": [
                {
                    "name": name,
                    "folder": str(shards.folder),
                    "samples": len(shards),
                    "manifest_sha256": shards.digest,
                }
                for name, shards in zip(self.sets.names, self.sets.sets, strict=True)
            ],
            "limits": vars(self.limits),
            "counts": {
                kind: {"found": found, "images": images, "across_sets": across, "leaks": leaks}
                for kind, found, images, across, leaks in self.counts()
            },
            "findings": {
                kind: [
                    {
                        "note": each.note,
                        "leaks": each.leaks,
                        "images": [self.sets.to_json(number) for number in each.members],
                    }
                    for each in found
                ]
                for kind, found in by_kind(self.findings).items()
            },
            "balance": self.balance,
        }


def audit(sets: Sequence[ShardSet], limits: Limits, *, workers: int, bar: Bar) -> Audit:
    """Look at every image of the sets; nothing depends on `workers`.

    Raises UserError where two of the sets are the same one.
    """
    digests = [shards.digest for shards in sets]
    for number, digest in enumerate(digests):
        if digest in digests[:number]:
            raise UserError(
                f"{sets[number].folder} is the same set as {sets[digests.index(digest)].folder}: name it once"
            )
    place = Sets(sets)
    findings = list(find_shared(place))
    with bar("measuring") as progress:
        prints = fingerprint_sets(sets, workers=workers, progress=progress)
    single, usable = _single(place, prints, limits)
    with bar("comparing") as progress:
        clusters = find_duplicates(
            sets,
            prints,
            usable,
            distance=limits.distance,
            correlation=limits.correlation,
            workers=workers,
            progress=progress,
        )
    findings += [_duplicate(place, cluster) for cluster in clusters]
    findings += find_contradictions(place, clusters, tolerance=limits.tolerance)
    findings += single
    return Audit(place, limits, findings, balance_of(place), clusters)


def _duplicate(sets: Sets, cluster: Cluster) -> Finding:
    if cluster.exact:
        return Finding(
            "exact", cluster.members, "equal pixels", float(len(cluster.members)), sets.leak(cluster.members)
        )
    bits = max(pair.distance for pair in cluster.pairs)
    note = f"correlation {cluster.correlation:.2f}, {bits} bits apart"
    return Finding("near", cluster.members, note, -cluster.correlation, sets.leak(cluster.members))


def _single(sets: Sets, prints: Sequence[Fingerprints], limits: Limits) -> tuple[list[Finding], np.ndarray]:
    """(findings of one image each, bool [all images]: which have content)."""
    damaged = {
        int(start) + row: reason
        for start, part in zip(sets.ends, prints, strict=False)
        for row, reason in part.damaged.items()
    }
    sharpness, spread = (
        np.concatenate([getattr(part, name) for part in prints]) for name in ("sharpness", "spread")
    )
    shorter = np.concatenate(
        [np.minimum(np.asarray(shards.width), np.asarray(shards.height)) for shards in sets.sets]
    )
    good = np.ones(len(sets), bool)
    good[list(damaged)] = False
    usable = good & (spread >= limits.empty)

    def each(kind: str, mask: np.ndarray, what: str, values: np.ndarray) -> Iterator[Finding]:
        for number in np.flatnonzero(mask).tolist():
            value = float(values[number])
            yield Finding(kind, (number,), f"{what} {value:.3g}", -value)

    findings = [Finding("damaged", (number,), reason, 0.0) for number, reason in sorted(damaged.items())]
    findings += each("empty", good & ~usable, "greys vary by", spread)
    findings += each("tiny", shorter < limits.tiny, "pixels", shorter)
    findings += each("blurred", usable & (sharpness < limits.sharp), "sharpness", sharpness)
    return findings, usable


def balance_of(sets: Sets) -> dict[str, dict[str, list[int]]]:
    """{label: {group: images of it in each set}}: of classes, bands of ages, few numbers, and bits."""
    tables: dict[str, dict[str, list[int]]] = {}
    for number, shards in enumerate(sets.sets):
        for name, kind in shards.schema.columns.items():
            for group, count in _counts(name, kind, np.asarray(shards.labels[name])).items():
                row = tables.setdefault(name, {}).setdefault(group, [0] * len(sets.sets))
                row[number] = count
    return tables


def _counts(name: str, kind: Any, values: np.ndarray) -> Mapping[str, int]:
    if name == "identity":
        return {}
    if kind.kind == "bits":
        bits = values.reshape(len(values), -1)
        names = kind.names or tuple(map(str, range(bits.shape[1])))
        return dict(zip(names, (bits == 1).sum(axis=0).tolist(), strict=True))
    group = group_of(name, kind, values)
    if group is None:
        return {}
    codes = np.asarray(group.codes, np.int64)
    counts = dict(
        zip(group.names, np.bincount(codes[codes >= 0], minlength=len(group.names)).tolist(), strict=True)
    )
    unknown = int((codes < 0).sum())
    return counts | ({"unknown": unknown} if unknown else {})
