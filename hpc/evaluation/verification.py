"""Are two images of one person? The evaluator of all pairs of a set, or of those of a public list.

While a run trains it gives EER, AUC, accuracy and TAR at FAR; `rostro evaluate` adds intervals, baselines and
a threshold: `verification_run.py`. The figures themselves: `hpc/metrics/verification.py`.
"""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from data_shards.batch import Batch
from hpc.evaluation import keys
from hpc.evaluation.base import Evaluator, Report, Request, Rows
from hpc.evaluation.pair_protocol import PairProtocol, score_run
from hpc.metrics.groups import Groups
from hpc.metrics.pairs import CAP, all_pairs
from hpc.task import Score, cosine

if TYPE_CHECKING:
    from hpc.inference.predictor import Predictor
    from hpc.task import Task


class Verification(Evaluator):
    """Verifies all pairs of a set, at most `cap` of each kind, from embeddings and identities by sample id.

    The task predicts "embedding" [n, d], and `Task.score` compares two of them.
    """

    KEYS = keys.VERIFICATION

    def __init__(self, *, score: Score = cosine, cap: int = CAP) -> None:
        self.score, self.cap = score, cap
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, task: "Task", nets: dict[str, nn.Module], batch: Batch) -> None:
        self.score = task.score(nets)
        embeddings = task.predict(nets, batch)["embedding"].cpu().numpy()
        self.keep(batch.ids[:, 0].numpy(), embeddings, batch.labels["identity"].cpu().numpy())

    def keep(self, ids: np.ndarray, embeddings: np.ndarray, identity: np.ndarray) -> None:
        """Keep `embeddings` [n, d] and `identity` [n] of the samples `ids` [n]."""
        wide = np.asarray(embeddings, np.float32)
        self._parts.append({"ids": np.asarray(ids), "embeddings": wide, "identity": np.asarray(identity)})

    def rows(self) -> Rows:
        if not self._parts:
            empty = np.zeros(0, np.int64)
            return {"ids": empty, "embeddings": np.zeros((0, 1), np.float32), "identity": empty}
        return {key: np.concatenate([part[key] for part in self._parts]) for key in self._parts[0]}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ids, embeddings, identity = (np.asarray(rows[key]) for key in ("ids", "embeddings", "identity"))
        pairs = all_pairs(identity, cap=self.cap)
        verdict, scores = score_run(
            embeddings, PairProtocol(pairs, ids, identity, {}), score=self.score, rounds=rounds, seed=0
        )
        return Report(
            verdict.scalars(),
            curves={"roc": (scores, pairs.same.astype(np.int64))},
            embeddings=(embeddings, ids),
            intervals=dict(verdict.intervals),
        )

    def assess(self, subject: "Predictor", request: Request) -> Report:
        """Judge a run on a set or a pair list, beside the untrained network and plain pixels."""
        from hpc.evaluation.verification_run import assess  # OpenCV and matplotlib are slow to load

        return assess(subject, request)
