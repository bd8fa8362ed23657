"""Figures of a two-class score, higher = the same: ROC, EER, AUC, TAR at FAR, accuracy over folds.

Pure numpy in float64, independent of the order of its input. What a pair is: `hpc/metrics/pairs.py`;
which figures a verification reports: `hpc/metrics/verification.py`.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Roc:
    """A ROC curve [k + 1]: a pair is accepted where its score >= the threshold. Thresholds fall from +inf."""

    thresholds: Array
    far: Array  # false accept rate: share of impostor pairs accepted, in [0, 1]
    tar: Array  # true accept rate: share of genuine pairs accepted, in [0, 1]
    genuine: float  # number (or weight) of genuine pairs
    impostors: float


@dataclass(frozen=True)
class Ranking:
    """Scored pairs from the highest score down; `ends`: the last pair of each run of equal scores."""

    order: Array  # [n] places in the input
    scores: Array  # [n] float64, falling
    same: Array  # [n] bool
    ends: Array  # [k]

    def roc(self, weight: Array | None = None) -> Roc:
        """Return the curve; `weight` [n] counts each pair (in the order of the input) that often.

        Raises ValueError where one of the two classes is empty.
        """
        if weight is None:
            positive, negative = self.same.astype(np.float64), (~self.same).astype(np.float64)
        else:
            ranked = weight[self.order].astype(np.float64)
            positive, negative = np.where(self.same, ranked, 0.0), np.where(self.same, 0.0, ranked)
        hits, alarms = np.cumsum(positive)[self.ends], np.cumsum(negative)[self.ends]
        genuine, impostors = float(hits[-1]), float(alarms[-1])
        if not genuine or not impostors:
            raise ValueError(f"a ROC needs both classes: {genuine:g} genuine, {impostors:g} impostor pairs")
        return Roc(
            np.concatenate([[np.inf], self.scores[self.ends]]),
            np.concatenate([[0.0], alarms / impostors]),
            np.concatenate([[0.0], hits / genuine]),
            genuine,
            impostors,
        )


def rank(scores: Array, same: Array) -> Ranking:
    """Sort pairs by score. `scores` [n] finite, `same` [n] bool."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return Ranking(order, ranked, same[order].astype(bool), ends)


def equal_error(curve: Roc) -> tuple[float, float]:
    """Return (EER, its threshold): where FAR = 1 - TAR, on straight lines between the points of the curve."""
    gap = curve.far + curve.tar - 1.0  # rises from -1 to 1
    after = int(np.argmax(gap >= 0.0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    rate = curve.far[before] + share * (curve.far[after] - curve.far[before])
    high, low = curve.thresholds[before], curve.thresholds[after]
    if share == 1.0 and after + 1 < len(curve.thresholds):  # met at a point: half way to the next pair
        return float(rate), float((low + curve.thresholds[after + 1]) / 2)
    return float(rate), float(low if np.isinf(high) else high + share * (low - high))


def area(curve: Roc) -> float:
    """Return the AUC: the probability that a genuine pair scores higher than an impostor, ties count half."""
    return float(np.trapezoid(curve.tar, curve.far))


def areas(scores: Array, same: Array, weight: Array) -> Array:
    """Return the AUC [rounds] of `scores` [n], `same` [n] bool, for each round of whole `weight` [n, rounds].

    NaN where a round has no pair of one kind. Each impostor counts the genuine ones above it, ties half; the
    rarer kind is summed up in the order of its scores, the other one by its places among them.
    """
    rare = same if 2 * same.sum() <= len(same) else ~same
    few, many = np.flatnonzero(rare), np.flatnonzero(~rare)
    if not len(few) or not len(many):
        return np.full(weight.shape[1], np.nan)
    few = few[np.argsort(scores[few], kind="stable")]
    # Pairs are whole and half numbers: exact in float32 up to 2^24, in half the time.
    kind = np.float32 if len(scores) < 5000 else np.float64
    below = np.zeros((len(few) + 1, weight.shape[1]), kind)
    np.cumsum(weight[few], 0, dtype=kind, out=below[1:])
    ends = [np.searchsorted(scores[few], scores[many], side=side) for side in ("left", "right")]
    total = np.zeros(weight.shape[1])
    for end in ends if (ends[0] != ends[1]).any() else ends[:1]:
        order = np.argsort(end, kind="stable")
        places, starts = np.unique(end[order], return_index=True)
        total += np.einsum(
            "nr,nr->r", np.add.reduceat(weight[many[order]], starts, 0, dtype=kind), below[places]
        )
    total /= 2 if (ends[0] != ends[1]).any() else 1
    pairs = below[-1].astype(np.float64) * weight[many].sum(0, dtype=np.float64)
    won = np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0)
    return won if rare is not same else 1 - won


def at_far(curve: Roc, far: float) -> tuple[float, float]:
    """Return (TAR, threshold) at the lowest threshold whose false accept rate is at most `far`."""
    last = int(np.searchsorted(curve.far, far * (1 + 1e-12), side="right")) - 1
    # Points of equal FAR: the last one has the highest TAR. Point 0 accepts nothing.
    threshold = curve.thresholds[last] if last else np.nextafter(curve.thresholds[1], np.inf)
    return float(curve.tar[last]), float(threshold)


def separation(scores: Array, same: Array) -> float:
    """Return d': the distance of the two means in units of their pooled standard deviation."""
    genuine, impostor = scores[same].astype(np.float64), scores[~same].astype(np.float64)
    pooled = np.sqrt((genuine.var() + impostor.var()) / 2)
    return float((genuine.mean() - impostor.mean()) / max(pooled, 1e-12))


def best_threshold(scores: Array, same: Array, *, balanced: bool) -> float:
    """Return the threshold of the highest accuracy, half way between two scores; the highest of equals.

    `balanced`: both classes weigh the same, whatever their counts.
    """
    curve = rank(scores, same).roc()
    genuine, impostors = (1.0, 1.0) if balanced else (curve.genuine, curve.impostors)
    right = curve.tar * genuine + (1.0 - curve.far) * impostors
    best = int(np.argmax(right))
    low = curve.thresholds[best + 1] if best + 1 < len(curve.thresholds) else -np.inf
    high = curve.thresholds[best]
    if np.isinf(high):
        return float(np.nextafter(low, np.inf))
    return float(high if np.isinf(low) else (high + low) / 2)


def correct(scores: Array, same: Array, threshold: float, *, balanced: bool) -> float:
    """Return the share of right answers at `threshold`; `balanced`: the mean of both classes' shares."""
    right = (scores >= threshold) == same
    return float((right[same].mean() + right[~same].mean()) / 2 if balanced else right.mean())


def fold_accuracy(scores: Array, same: Array, fold: Array, *, balanced: bool) -> Array:
    """Return the accuracy on each fold at the threshold that is best on all other folds: LFW's protocol.

    Left out are pairs of fold -1, and a fold that lacks a class or whose complement does. Source: Huang et
    al., Labeled Faces in the Wild, 2007, section IV.
    """
    accuracies = []
    for number in np.unique(fold[fold >= 0]):
        test, train = fold == number, (fold >= 0) & (fold != number)
        if all(part.any() and not part.all() for part in (same[test], same[train])):
            threshold = best_threshold(scores[train], same[train], balanced=balanced)
            accuracies.append(correct(scores[test], same[test], threshold, balanced=balanced))
    return np.array(accuracies)
