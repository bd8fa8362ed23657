"""Thresholds, clips, one class, baselines and ranks: what the evaluators of classes do beyond figures."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from hpc.distributed.comm import Comm
from hpc.evaluation.base import Evaluator, JudgedSet, Report
from hpc.evaluation.baselines import COMMONEST, LINEAR, Baselines, add_baselines
from hpc.evaluation.classes import Bits, Classes
from hpc.evaluation.run import collected, gathered
from hpc.evaluation.values import Values
from hpc.metrics.classification import softmax
from hpc.metrics.groups import Group, Groups
from tests.support.ranks import launch

N = 400


def drawn(seed: int, k: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, N)
    return (rng.normal(size=(N, k)) + 1.5 * np.eye(k)[labels]).astype(np.float32), labels


def rows_of(each: Evaluator) -> dict:
    return gathered(each.rows(), Comm())


def report_of(each: Evaluator, *, groups: Groups | None = None, rounds: int = 0) -> Report:
    return each.report({}, rows_of(each), groups=groups or Groups(), rounds=rounds)


def me(seed: int, **keys) -> tuple[Classes, np.ndarray, np.ndarray]:
    logits, labels = drawn(seed)
    each = Classes("face", names=("others", "me"), **keys)
    each.keep(np.arange(N), logits, labels)
    return each, logits, labels


@pytest.mark.parametrize(("positive", "place"), [("", 1), ("others", 0)])
def test_a_threshold_holds_its_false_accepts_on_val_and_decides_after(positive, place):
    on_val, logits, labels = me(0, far=0.05, positive=positive)
    chosen = on_val.choose(rows_of(on_val))
    odds = logits[:, place] - logits[:, 1 - place]
    accepted = odds >= chosen["threshold"]
    assert accepted[labels != place].mean() <= 0.05
    assert (odds > np.sort(odds[~accepted])[-2])[labels != place].mean() > 0.05 - 2 / N
    assert chosen["tar_there"] == accepted[labels == place].mean()
    each, logits, labels = me(1, far=0.05, positive=positive)
    each.chosen = chosen
    report = report_of(each, rounds=50)
    accepted = logits[:, place] - logits[:, 1 - place] >= chosen["threshold"]
    assert report.scalars["tar"] == pytest.approx(accepted[labels == place].mean())
    assert report.scalars["far"] == pytest.approx(accepted[labels != place].mean())
    assert report.scalars["accuracy"] == pytest.approx((accepted == (labels == place)).mean())
    assert "far" in report.intervals
    assert any("at most far=0.05" in note for note in report.notes)
    first = each.record({"face": logits[0]}, {})
    assert first["face"] == ("others", "me")[place if accepted[0] else 1 - place]


def test_a_threshold_needs_two_classes_and_enough_of_them():
    each, logits, _ = me(0)
    each.typed = {"far": 0.01}
    assert "rests on fewer than 10 false accepts" in " ".join(
        report_of(chosen_by(each, each.choose(rows_of(each)))).notes
    )
    alone = Classes("face", names=("others", "me"), far=0.1)
    alone.keep(np.arange(N), logits, np.ones(N, int))
    with pytest.raises(UserError, match=r"far=0\.1: all 400 images on which face chooses .* are positives"):
        alone.choose(rows_of(alone))
    wrong, _, _ = me(0, far=0.1, positive="you")
    with pytest.raises(UserError, match="positive=you is not a class of face: use others or me"):
        wrong.choose(rows_of(wrong))
    many = Classes("mood", far=0.1)
    many.keep(np.arange(N), *drawn(0, 3))
    with pytest.raises(UserError, match="mood has 3 classes, a threshold decides between two"):
        many.choose(rows_of(many))


def chosen_by(each: Classes, chosen: dict) -> Classes:
    each.chosen = chosen
    return each


def test_confidences_are_calibrated_where_they_are_recorded():
    each, logits, _ = me(0)
    plain = each.record({"face": logits[3]}, {})["face_confidence"]
    each.chosen = {"temperature": 2.0}
    assert each.record({"face": logits[3]}, {})["face_confidence"] == pytest.approx(
        softmax(logits[3:4], 2.0).max()
    )
    assert plain == pytest.approx(softmax(logits[3:4]).max())


def test_one_class_has_figures_without_an_auc_and_chooses_no_temperature():
    each = Classes("face", names=("others", "me"))
    each.keep(np.arange(N), drawn(0)[0], np.zeros(N, int))
    assert each.choose(rows_of(each)) == {}
    report = report_of(each, rounds=20)
    assert "auc" not in report.scalars
    assert report.scalars["balanced_accuracy"] == report.scalars["accuracy"]
    assert any("all 400 samples are of the class others" in note for note in report.notes)


def test_clips_are_judged_by_the_mean_probability_of_their_images():
    logits, _ = drawn(0)
    clips = np.arange(N) // 8
    labels = clips % 2
    logits += labels[:, None] * np.array([[0.0, 1.0]], np.float32)
    labels[0] = 1 - labels[1]  # a clip of two classes
    fields = {"fake": Field("class", "i1", names=("real", "fake"))}
    shards = SimpleNamespace(schema=SimpleNamespace(fields=fields), labels={"identity": clips})
    each = Classes("fake", units=True)
    each.begin(JudgedSet(lambda comm: [], shards))
    each.keep(np.arange(N), logits, labels)
    report = report_of(each, groups=Groups(units=clips), rounds=50)
    mean = softmax(logits).reshape(-1, 8, 2).mean(1)[1:]
    truth = labels.reshape(-1, 8)[1:, 0]
    assert report.scalars["auc_by_identity"] == pytest.approx(roc_auc_score(truth, mean[:, 1]))
    assert report.scalars["accuracy_by_identity"] == pytest.approx((mean.argmax(1) == truth).mean())
    low, high = report.intervals["accuracy_by_identity"]
    assert low <= report.scalars["accuracy_by_identity"] <= high
    assert "1 with images of two classes are left out" in report.tables["by identity"].note
    each.units = False
    assert "by identity" not in report_of(each).tables
    each.typed = {"by": "identity"}
    assert "by identity" in report_of(each).tables


class Pixels(SimpleNamespace):
    """A set whose images are grey squares, brighter by the label."""

    def __len__(self) -> int:
        return len(self.labels["bright"])

    def images(self, ids: np.ndarray) -> np.ndarray:
        tone = (
            np.linspace(0, 1, 32)[None, None, :, None]
            * (2 * self.labels["bright"][ids] - 1)[:, None, None, None]
        )
        noise = np.random.default_rng(len(self)).normal(0, 30, (len(self), 32, 32, 1))[ids]
        return np.clip(128 + 15 * tone + noise, 0, 255).astype(np.uint8).repeat(3, 3)


def bright(n: int, seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.7).astype(np.int64)
    fields = {"bright": Field("class", "i1", names=("no", "yes")), "years": Field("value", "f4")}
    columns = {"bright": labels, "years": 20.0 + 30 * labels + rng.normal(0, 1, n), "bits": labels[:, None]}
    columns["identity"] = np.arange(n)
    return Pixels(schema=SimpleNamespace(fields=fields), labels=columns)


def test_baselines_learn_from_the_training_set_and_are_judged_as_the_network_is():
    train, held_out = bright(600, 0), bright(200, 1)

    def blocks(shards, ids):
        return (shards.images(part) for part in np.array_split(ids, 3))

    both = Baselines(train, held_out, blocks)
    found = both.reports(lambda: Classes("bright"), "bright", Groups(), 50)
    truth = held_out.labels["bright"]
    assert found[COMMONEST].scalars["accuracy"] == pytest.approx(truth.mean())
    assert found[LINEAR].scalars["accuracy"] > 0.95
    assert found[LINEAR].intervals["accuracy"][0] <= found[LINEAR].scalars["accuracy"]
    years = both.reports(lambda: Values("years"), "years", Groups(), 0)
    mean = train.labels["years"].mean()
    assert years[COMMONEST].scalars["mae"] == pytest.approx(np.abs(held_out.labels["years"] - mean).mean())
    assert years[LINEAR].scalars["mae"] < years[COMMONEST].scalars["mae"] / 2
    of_bits = both.reports(lambda: Bits("bits"), "bits", Groups(), 0)
    assert of_bits[COMMONEST].scalars["accuracy"] == pytest.approx(truth.mean())
    report = Report({"accuracy": 0.9, "log_loss": 1.0})
    add_baselines(report, found, ("accuracy", "auc"), name="net")
    assert [row[0] for row in report.tables["beside baselines"].rows] == ["net", LINEAR, COMMONEST]
    assert report.baselines[LINEAR] == {"accuracy": found[LINEAR].scalars["accuracy"]}


def on_ranks(comm: Comm) -> tuple[dict, dict]:
    """Figures of samples that are dealt to the ranks in blocks, on rank 0."""
    logits, labels = drawn(0, 4)
    groups = Groups(
        {"race": Group(("a", "b", "c"), np.arange(N) % 3), "gender": Group(("f", "m"), np.arange(N) // 7 % 2)}
    )
    each = Classes("mood")
    for block in range(comm.rank, 20, comm.world):
        rows = np.arange(20 * block, 20 * block + 20)
        each.keep(rows, logits[rows], labels[rows])
    sums, rows = collected(each, comm)
    report = each.report(sums, rows, groups=groups, rounds=100) if comm.main else Report()
    return report.scalars, report.intervals


def test_figures_gaps_and_intervals_are_the_same_at_1_2_and_5_ranks():
    alone = on_ranks(Comm())
    assert {"equalized_odds_difference_race", "accuracy_gap_race_x_gender", "accuracy_gap_at_least"} <= alone[
        0
    ].keys()
    for world in (2, 5):
        assert launch(on_ranks, world)[0] == alone
