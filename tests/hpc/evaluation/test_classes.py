"""Evaluators of classes, bits and values: unknown labels, names, calibration, gate, tables, the page."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import precision_score, roc_auc_score

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from hpc.distributed.comm import Comm
from hpc.evaluation import report as report_file
from hpc.evaluation.base import Evaluator, JudgedSet, Report
from hpc.evaluation.classes import Bits, Classes
from hpc.evaluation.run import gathered
from hpc.evaluation.values import Values
from hpc.metrics.groups import Group, Groups

RNG = np.random.default_rng(0)
N = 120
RACE = Groups({"race": Group(("a", "b"), np.arange(N) % 2)})


def judged(each: Evaluator, *, groups: Groups = RACE, rounds: int = 0) -> Report:
    return each.report({}, gathered(each.rows(), Comm()), groups=groups, rounds=rounds)


def of_set(**fields: Field) -> JudgedSet:
    return JudgedSet(lambda comm: [], SimpleNamespace(schema=SimpleNamespace(fields=fields)))


def classes(*, chosen: bool = False) -> Classes:
    labels = RNG.integers(0, 3, N)
    logits = 6 * RNG.normal(size=(N, 3)) + 6 * np.eye(3)[labels]
    labels[:7] = -1
    each = Classes("emotion")
    each.begin(of_set(emotion=Field("class", "i4", names=("joy", "<b>fear</b>", "anger"))))
    for part in np.array_split(RNG.permutation(N), 4):
        each.keep(part, logits[part], labels[part])
    if chosen:
        each.chosen = each.choose(gathered(each.rows(), Comm()))
    return each


def test_classes_leave_out_the_unknown_and_are_calibrated():
    plain, calibrated = judged(classes()), judged(classes(chosen=True))
    assert {"accuracy", "balanced_accuracy", "macro_f1", "auc", "log_loss", "ece"} <= plain.scalars.keys()
    assert "ece_calibrated" not in plain.scalars
    assert calibrated.scalars["log_loss_calibrated"] < calibrated.scalars["log_loss"]
    assert len(calibrated.rows["ids"]) == N - 7
    names = [row[0] for row in plain.tables["classes"].rows]
    assert names == ["joy", "<b>fear</b>", "anger"]
    assert sum(row[4] for row in plain.tables["classes"].rows) == N - 7
    assert "accuracy_gap_race" in plain.scalars


def test_a_class_is_not_split_by_itself_unless_it_was_typed():
    emotion = Groups({"emotion": Group(("x", "y", "z"), np.arange(N) % 3)} | dict(RACE.columns))
    assert [title for title in judged(classes(), groups=emotion).tables if "by" in title] == ["by race"]
    each = classes()
    each.typed = {"groups": "emotion,race"}
    assert "accuracy_gap_emotion" in judged(each, groups=emotion).scalars


def test_a_class_beyond_the_network_is_refused():
    each = Classes("emotion")
    each.keep(np.arange(2), np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(UserError, match="emotion has 3 classes, the label emotion holds number 3"):
        judged(each, groups=Groups())


def test_bits_equal_scikit_learn():
    labels = RNG.integers(0, 2, (N, 4))
    labels[:, 3] = 1  # a bit without two kinds has no curve
    logits = RNG.normal(size=(N, 4)) + labels
    known = labels.copy()
    known[:9, 0] = -1
    each = Bits("traits", names=("hat", "beard", "smile", "face"))
    each.keep(np.arange(N), logits, known)
    report = judged(each)
    areas = [roc_auc_score(labels[9:, 0], logits[9:, 0])]
    areas += [roc_auc_score(labels[:, bit], logits[:, bit]) for bit in (1, 2)]
    assert report.scalars["auc"] == pytest.approx(np.mean(areas), abs=1e-6)
    rows = {row[0]: row[1:] for row in report.tables["bits"].rows}
    assert rows["hat"][-1] == N - 9
    assert rows["face"][2] == rows["face"][6] == "-"  # balanced accuracy and AUC need both kinds
    assert float(rows["beard"][3]) == pytest.approx(precision_score(labels[:, 1], logits[:, 1] > 0), abs=1e-4)
    above = sum(float(row[0]) > float(row[1]) for row in rows.values())
    assert report.scalars["bits_above_majority"] == above
    assert "bits are above it" in report.tables["figures"].note
    assert float(rows["beard"][0]) == pytest.approx(((logits[:, 1] > 0) == labels[:, 1]).mean(), abs=1e-3)


def values(*, offset: float = 0.0, gate: float = 0.0) -> Values:
    truth = RNG.uniform(1, 80, N)
    predicted = truth + RNG.normal(0, 2, N) + offset * (np.arange(N) % 2)
    truth[:3] = -1
    each = Values("age", unit="years")
    each.typed = {"gate.max_gap": gate}
    each.keep(np.arange(N), predicted, truth)
    return each


def test_values_and_their_gap_between_groups_and_the_gate():
    report = judged(values(offset=10.0, gate=5.0), rounds=200)
    assert report.scalars["mae_gap_race"] == pytest.approx(8.5, abs=1.5)
    low, high = report.intervals["mae_gap_race"]
    assert low < report.scalars["mae_gap_race"] < high
    assert report.scalars["mae_gap_at_least"] == pytest.approx(low)
    assert report.gate.startswith("mae differs by")
    assert "between b and a (race), and by at least" in report.gate
    assert report.gate.endswith("gate.max_gap=5")
    assert report.tables["bias"].rows[0][:3] == [
        "race",
        "2 of 2",
        f"b: {report.tables['by race'].rows[1][2].split()[0]}",
    ]
    assert len(report.rows["ids"]) == N - 3
    assert judged(values(gate=5.0), rounds=200).gate == ""
    assert (
        "no label has two groups of 10 samples" in judged(values(gate=5.0), groups=Groups(), rounds=200).gate
    )
    with pytest.raises(
        UserError, match=r"gate\.max_gap=5 is held to the lower bound of the gap: use bootstrap=100"
    ):
        judged(values(gate=5.0))
    with pytest.raises(ValueError, match="age has shape"):
        values().keep(np.arange(2), np.zeros(2), np.zeros((2, 1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused(bad):
    logits, labels = np.array([[0.0, bad], [1.0, 2.0]]), np.array([0, 1])
    each: Evaluator
    for each, predicted, truth in (
        (Values("age"), logits[:, 1], labels),
        (Classes("age"), logits, labels),
        (Bits("age"), logits, np.array([[0, 1], [1, 0]])),
    ):
        each.keep(np.arange(2), predicted, truth)
        with pytest.raises(UserError, match="age: 1 of 2 predictions are not finite"):
            judged(each)


def test_an_empty_set_gives_no_figures():
    for each in (Values("age"), Classes("x"), Bits("y")):
        assert judged(each).scalars == {}


def test_a_report_is_files_and_a_page_that_escapes_and_needs_nothing(tmp_path):
    reports = {"emotion": judged(classes(chosen=True)), "age": judged(values(), rounds=10)}
    reports["age"].notes = ["note: <script>alert(1)</script>"]
    content = report_file.write(tmp_path / "x", {"run": "r", "set": "s", "split": None}, reports)
    assert set(content["pictures_drawn"]) == {
        "emotion-confusion.png", "emotion-calibration.png", "emotion-groups.png",
        "age-errors.png", "age-scatter.png", "age-groups.png",
    }  # fmt: skip
    page = (tmp_path / "x" / "report.html").read_text()
    assert page.count("<img") == 6
    assert page.count('src="data:image/png;base64,') == 6
    assert "://" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;fear&lt;/b&gt;" in page
    assert content["evaluators"]["age"]["scalars"] == reports["age"].scalars


def test_each_of_many_groups_has_a_line_of_its_own(tmp_path, monkeypatch):
    """Bands of age are more than there are colours."""
    from hpc.plots import canvas, curves

    seen = []
    monkeypatch.setattr(curves, "save", lambda figure, path: seen.extend(figure.axes[0].get_lines()))
    errors = {str(number): np.arange(5.0) for number in range(len(canvas.COLOURS) + 3)}
    curves.draw_errors(tmp_path / "x.png", errors, title="", unit="")
    assert len({(line.get_color(), line.get_linestyle()) for line in seen}) == len(errors)
