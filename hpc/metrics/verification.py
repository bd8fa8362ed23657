"""Are two images of one person? Scores of pairs of embeddings, and all figures of a verification.

A score is higher for the same person: the cosine (`hpc/task.py`), or the probability of a head on |a - b|.
The evaluator that keeps embeddings is in `hpc/evaluation/verification.py`, curves are in `roc.py` here.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from hpc.metrics import roc
from hpc.metrics.pairs import Pairs
from hpc.task import Score, cosine

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
SUPPORT = 10  # impostor pairs that a false accept rate needs beyond it
_BLOCK = 1 << 22  # numbers of one block of gathered embeddings
_RESAMPLED = 100_000  # impostor pairs of a bootstrap: its interval comes from the people, not from more pairs


def probability(weight: np.ndarray, bias: float) -> Score:
    """Return the score of a linear head on |a - b|: the probability of "the same person". `weight` [d]."""

    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        logit = np.abs(a - b).astype(np.float64) @ weight.astype(np.float64) + float(bias)
        return 0.5 * (1.0 + np.tanh(0.5 * logit))

    return score


def score_pairs(embeddings: np.ndarray, pairs: Pairs, score: Score = cosine) -> np.ndarray:
    """Compute scores [n] float64 of `pairs` of rows of `embeddings` [m, d], in blocks of bounded memory."""
    bad = ~np.isfinite(embeddings).all(1)
    if bad.any():
        raise UserError(f"{int(bad.sum())} of {len(bad)} embeddings are not finite: the network has diverged")
    wide = np.asarray(embeddings, np.float32)
    step = max(_BLOCK // wide.shape[1], 1)
    scores = np.empty(len(pairs), np.float64)
    for start in range(0, len(pairs), step):
        block = slice(start, start + step)
        scores[block] = score(wide[pairs.first[block]], wide[pairs.second[block]])
    return scores


@dataclass
class VerificationResult:
    """All figures of one scorer on one list of pairs."""

    eer: float
    auc: float
    accuracy: float  # mean over the folds; NaN with fewer than two of them
    accuracy_std: float
    folds: int
    balanced: bool
    separation: float  # d'
    tar: dict[float, float | None]  # by FAR; None = too few impostor pairs
    thresholds: dict[str, float]  # "eer", "far=1e-2", ...
    genuine: int
    impostors: int
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, by figure

    def scalars(self) -> dict[str, float]:
        """Return the figures that exist, as a monitor plots them."""
        shown = {"eer": self.eer, "auc": self.auc, "d_prime": self.separation}
        if self.folds:
            shown["accuracy"] = self.accuracy
        return shown | {f"tar@{name(far)}": tar for far, tar in self.tar.items() if tar is not None}

    def plain(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
        accuracy = {"mean": self.accuracy, "std": self.accuracy_std} if self.folds else None
        return {
            "eer": self.eer,
            "auc": self.auc,
            "d_prime": self.separation,
            "accuracy": accuracy and accuracy | {"folds": self.folds, "balanced": self.balanced},
            "tar": {name(far): tar for far, tar in self.tar.items()},
            "thresholds": self.thresholds,
            "pairs": {"genuine": self.genuine, "impostors": self.impostors},
            "intervals_95": {figure: list(pair) for figure, pair in self.intervals.items()},
        }


def name(far: float) -> str:
    """Return the name of a false accept rate: `far=1e-2`."""
    return f"far=1e-{round(-np.log10(far))}"


def measure(scores: np.ndarray, pairs: Pairs) -> VerificationResult:
    """Compute every figure of `scores` [n], without intervals."""
    curve = roc.rank(scores, pairs.same).roc()
    rate, threshold = roc.equal_error(curve)
    enough = {far: curve.impostors >= SUPPORT / far * (1 - 1e-9) for far in FARS}
    reached = {far: roc.at_far(curve, far) for far in FARS if enough[far]}
    folds = roc.fold_accuracy(scores, pairs.same, pairs.fold, balanced=pairs.balanced)
    return VerificationResult(
        eer=rate,
        auc=roc.area(curve),
        accuracy=float(folds.mean()) if len(folds) else float("nan"),
        accuracy_std=float(folds.std()) if len(folds) else float("nan"),
        folds=len(folds),
        balanced=pairs.balanced,
        separation=roc.separation(scores, pairs.same),
        tar={far: reached[far][0] if enough[far] else None for far in FARS},
        thresholds={"eer": threshold} | {name(far): reached[far][1] for far in reached},
        genuine=int(curve.genuine),
        impostors=int(curve.impostors),
    )


def bootstrap(
    scores: np.ndarray, pairs: Pairs, identity: np.ndarray, *, rounds: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals of EER and AUC by resampling the people, who make pairs dependent.

    A person drawn m times counts m times in each genuine pair and m1 * m2 times in an impostor pair (after
    the subsets bootstrap of Bolle, Ratha & Pankanti 2004). `identity` [m]: of the rows that `pairs` names.
    """
    people, code = np.unique(identity, return_inverse=True)
    spread = np.flatnonzero(~pairs.same)
    if len(spread) > _RESAMPLED:
        stream = counter_rng.key(seed, "bootstrap pairs")
        spread = np.sort(spread[counter_rng.permute(stream, np.arange(_RESAMPLED), len(spread))])
    used = np.concatenate([np.flatnonzero(pairs.same), spread])
    ranking = roc.rank(scores[used], pairs.same[used])
    same, a, b = pairs.same[used], code[pairs.first[used]], code[pairs.second[used]]
    rates, areas = [], []
    stream = counter_rng.key(seed, "bootstrap people")
    for number in range(rounds):
        drawn = counter_rng.uniform(stream, np.array([number]), len(people))[0]
        times = np.bincount((drawn * len(people)).astype(np.int64), minlength=len(people))
        weight = np.where(same, times[a], times[a] * times[b])
        if weight[same].any() and weight[~same].any():
            curve = ranking.roc(weight)
            rates.append(roc.equal_error(curve)[0])
            areas.append(roc.area(curve))
    if not rates:
        return {}
    low, high = np.percentile([rates, areas], [2.5, 97.5], axis=1)
    return {"eer": (float(low[0]), float(high[0])), "auc": (float(low[1]), float(high[1]))}
