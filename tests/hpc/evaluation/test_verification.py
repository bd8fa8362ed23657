"""The evaluator of pairs: the same figures however its rows came to rank 0."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_shards.errors import UserError
from hpc.distributed.comm import Comm
from hpc.evaluation.base import Report
from hpc.evaluation.run import gathered
from hpc.evaluation.verification import Verification
from hpc.metrics.groups import Groups
from hpc.metrics.pairs import all_pairs
from hpc.metrics.verification import measure
from tests.hpc.metrics.test_verification import faces


def fill(each: Verification, parts: list[np.ndarray], embeddings: np.ndarray, identity: np.ndarray) -> dict:
    for rows in parts:
        each.keep(rows, embeddings[rows], identity[rows])
    return each.rows()


def result(rows: dict) -> Report:
    return Verification().report({}, gathered(rows, Comm()), groups=Groups(), rounds=0)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_and_repeats_do_not_change_the_figures(world):
    embeddings, identity = faces()
    wanted = result(fill(Verification(), [np.arange(150)], embeddings, identity))
    shuffled = np.random.default_rng(world).permutation(150)
    found = [
        fill(Verification(), [part, part[:2]], embeddings, identity)  # an image read twice counts once
        for part in np.array_split(shuffled, world)
    ]
    report = result({key: np.concatenate([part[key] for part in found]) for key in found[0]})
    assert report.scalars == wanted.scalars
    for side in (0, 1):
        np.testing.assert_array_equal(report.curves["roc"][side], wanted.curves["roc"][side])
    np.testing.assert_array_equal(report.embeddings[1], np.arange(150))


def test_it_reports_what_its_count_of_impostors_allows():
    embeddings, identity = faces(people=12, each=4)  # 48 images: 72 genuine, 1056 impostor pairs
    report = result(fill(Verification(), [np.arange(48)], embeddings, identity))
    assert {"eer", "auc", "d_prime", "accuracy", "tar@far=1e-1", "tar@far=1e-2"} == report.scalars.keys()
    scores, labels = report.curves["roc"]
    assert report.scalars["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert (labels.sum(), len(labels)) == (72, 1128)
    verdict = measure(scores, all_pairs(identity))
    assert verdict.tar[1e-3] is None
    assert verdict.thresholds.keys() == {"eer", "far=1e-1", "far=1e-2"}
    assert (scores[labels == 0] >= verdict.thresholds["far=1e-2"]).mean() <= 1e-2


def test_an_empty_rank_and_a_diverged_network():
    embeddings, identity = faces()
    assert Verification().rows()["ids"].shape == (0,)
    broken = embeddings.copy()
    broken[7] = np.nan
    with pytest.raises(UserError, match="1 of 150 embeddings are not finite"):
        result(fill(Verification(), [np.arange(150)], broken, identity))
