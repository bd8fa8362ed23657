"""AP by COCO's protocol: a plain reference on 50 random cases, both packages, ranks, groups and pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from data_shards.ragged import Ragged
from data_shards.sources.boxes import box_fields
from hpc.distributed.comm import Comm
from hpc.evaluation import report as report_file
from hpc.evaluation.base import JudgedSet, Report
from hpc.evaluation.detections import Detections
from hpc.evaluation.run import gathered
from hpc.metrics import coco, matched
from hpc.metrics.groups import Groups
from tests.support.found_objects import Painted, guesses, in_memory, judge, pack_painted
from tests.support.ranks import launch


def overlap(one: list[float], other: list[float], *, crowd: bool = False) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (first if crowd else first + second - both)


def plain_ap(
    truths: list[list[tuple]], found: list[list[tuple]], threshold: float, kinds: int, low: float, most: int
) -> float:
    """AP as COCO describes it. Truths: (box, class, ignored); found: (box, score, class).

    low: area from which objects count: smaller ones are ignored, and so are smaller detections of none.
    """
    values = []
    for kind in range(kinds):
        marks, total = [], 0
        for own, guessed in zip(truths, found, strict=True):
            boxes = [(box, ignored) for box, of, ignored in own if of == kind]
            area = [(box[2] - box[0]) * (box[3] - box[1]) for box, _ in boxes]
            out = [ignored or size < low for (_, ignored), size in zip(boxes, area, strict=True)]
            total += out.count(False)
            free = [True] * len(boxes)
            rows = sorted((row for row in guessed if row[2] == kind), key=lambda row: -row[1])[:most]
            for box, score, _ in rows:
                for ignored in (False, True):  # a target is preferred
                    best, at = threshold, None
                    for number, (other, crowd) in enumerate(boxes):
                        if out[number] != ignored or not (free[number] or crowd):
                            continue
                        if (share := overlap(box, other, crowd=crowd)) >= best:
                            best, at = share, number
                    if at is not None:
                        break
                if at is None:
                    small = (box[2] - box[0]) * (box[3] - box[1]) < low
                    marks += [] if small else [(score, 0)]
                else:
                    free[at] = False
                    marks += [] if out[at] else [(score, 1)]
        if not total:
            continue
        marks.sort(key=lambda mark: -mark[0])
        hits, curve = 0, []
        for number, (_, right) in enumerate(marks):
            hits += right
            curve.append((hits / total, hits / (number + 1)))
        steps = np.linspace(0, 1, 101)
        values.append(np.mean([max((p for r, p in curve if r >= step), default=0.0) for step in steps]))
    return float(np.mean(values))


def case(seed: int) -> tuple[coco.Truths, Ragged, list[list[tuple]], list[list[tuple]]]:
    """Five images with at most eight objects each of two classes, some ignored; scores are all different."""
    rng = np.random.default_rng(seed)
    boxes, kinds, ignored, found = [], [], [], []
    for _ in range(5):
        count = int(rng.integers(0, 9))
        corner = rng.uniform(0, 200, (count, 2))
        boxes.append(np.concatenate([corner, corner + rng.uniform(8, 90, (count, 2))], 1))
        kinds.append(rng.integers(0, 2, count))
        ignored.append(rng.random(count) < 0.2)
        rows = np.repeat(boxes[-1], 2, axis=0) + rng.normal(0, 5, (2 * count, 4))
        guessed = np.where(
            rng.random(2 * count) < 0.8, np.repeat(kinds[-1], 2), rng.integers(0, 2, 2 * count)
        )
        rows = rows[(rows[:, 2:] - rows[:, :2] > 1).all(1)]
        guessed = guessed[: len(rows)]
        found.append(np.column_stack([rows, rng.random(len(rows)), guessed]))
    lists = Ragged.of_lists([torch.from_numpy(each) for each in boxes])
    area = np.prod(np.concatenate(boxes)[:, 2:] - np.concatenate(boxes)[:, :2], 1)
    truths = coco.Truths(lists, np.concatenate(kinds), np.concatenate(ignored), area)
    columns = (boxes, kinds, ignored)
    plain_truths = [
        list(zip(*(part.tolist() for part in image), strict=True)) for image in zip(*columns, strict=True)
    ]
    plain_found = [[(row[:4], row[4], int(row[5])) for row in each.tolist()] for each in found]
    return truths, Ragged.of_lists([torch.from_numpy(each) for each in found]), plain_truths, plain_found


@pytest.mark.parametrize("package", [name for name, _ in coco.LIBRARIES])
def test_a_plain_reference_agrees_on_50_random_cases(package):
    pytest.importorskip(package)
    compared = 0
    for seed in range(50):
        truths, found, plain_truths, plain_found = case(seed)
        most, low = (100, 4)[seed % 5 == 4], (0.0, 900.0)[seed % 3 == 2]
        figures = coco.judge(truths, found, 2, most=most, bands={"all": (low, 1e10)}, package=package)
        for threshold in (0.5, 0.75):
            expected = plain_ap(plain_truths, plain_found, threshold, 2, low, most)
            assert figures.ap(threshold=threshold) == pytest.approx(expected, abs=1e-9), seed
            compared += 0 < expected < 1
    assert compared > 80


def test_both_packages_have_the_same_digits():
    pytest.importorskip("faster_coco_eval")
    for seed in range(5):
        truths, found, *_ = case(seed)
        both = [coco.judge(truths, found, 2, package=name).scalars() for name, _ in coco.LIBRARIES]
        assert repr(both[0]) == repr(both[1])
    assert coco.library().startswith("faster_coco_eval ")


def test_the_own_matching_has_the_recall_of_the_packages():
    for seed in range(20):
        truths, found, *_ = case(seed)
        pairs = matched.match(truths, found)
        figures = coco.judge(truths, found, 2, package="pycocotools")
        recall = []
        for kind in range(2):
            own = pairs.judged & (truths.classes == kind)
            recall.append((pairs.found[own] > -np.inf).mean())
        stated = figures.recall[0, :, 0, -1]
        np.testing.assert_allclose(recall, stated, atol=1e-12)


def test_a_confusion_counts_every_object_once():
    truths, found, *_ = case(3)
    counts = matched.confusion(truths, found, 2, score=0.3)
    kept = (found.rows[:, 4] >= 0.3).numpy()
    pairs = matched.match(truths, Ragged(found.rows, found.starts), agnostic=True)
    assert counts[:2].sum() == (~truths.ignored).sum()
    assert counts[2].sum() <= kept.sum()
    assert counts[2, 2] == 0
    assert pairs.truth.max() < len(truths.classes)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return pack_painted(tmp_path_factory.mktemp("painted"))


@pytest.mark.parametrize("world", [2, 3])
def test_figures_are_the_same_at_any_number_of_ranks(painted, world):
    shards, truth = painted
    alone = judge(Comm(), str(shards.folder), str(truth))
    assert len(shards) % (3 * world)  # an uneven tail
    for scalars in launch(judge, world, str(shards.folder), str(truth)):
        assert repr(scalars) == repr(alone)  # all digits
    named = {"ap", "ap50", "ap_small", "ar_50", "ap50_16px", "recall", "recall_gap_blur"}
    assert named <= alone["objects"].keys()
    assert 0.1 < alone["objects"]["ap50"] < 1
    assert alone["objects"]["ap50"] != alone["objects"]["ap50_16px"]
    assert 0.2 < alone["wider"]["easy"] < 1


def reported(shards, folder: Path, *, chosen: dict | None = None) -> tuple[Report, dict]:
    each = Detections(most=50)
    each.chosen = chosen or {}
    each.begin(JudgedSet(lambda comm: [], shards))
    ids = np.arange(len(shards))
    each.keep(ids, Ragged.of_lists([guesses(shards, row) for row in ids]), np.full(len(ids), 0.5))
    rows = gathered(each.rows(), Comm())
    report = each.report({}, rows, groups=Groups(), rounds=20)
    return report, each.choose(rows) | report_file.write(folder, {"run": "x"}, {"objects": report})


def test_a_report_has_groups_curves_and_pictures(painted, tmp_path):
    shards, _ = painted
    report, content = reported(shards, tmp_path)
    expected = {"figures", "by class", "bias", "by blur", "by occluded", "by size"}
    assert expected <= report.tables.keys()
    assert not {"by ignore", "by crowd"} & report.tables.keys()
    assert set(content["pictures_drawn"]) == {"precision.png", "confusion.png", "worst.png", "groups.png"}
    assert all((tmp_path / name).stat().st_size > 5000 for name in content["pictures_drawn"])
    scores, right = report.curves["pr"]
    pairs = int((scores >= report.scalars["score"]).sum())
    hits = int(right[scores >= report.scalars["score"]].sum())
    assert hits / pairs == pytest.approx(report.scalars["precision"])
    assert hits / right.sum() <= report.scalars["recall"] + 1e-9
    assert content["score"] == report.scalars["score"]  # what val would choose
    kept, _ = reported(shards, tmp_path, chosen={"score": 0.9})
    assert kept.scalars["score"] == 0.9
    assert kept.scalars["recall"] < report.scalars["recall"]


def test_ignored_objects_are_neither_targets_nor_mistakes():
    boxes = [np.array([[10, 10, 40, 40], [100, 100, 60, 60]], float)]
    flags = [np.array([[0, 0, 0, 0], [1, 0, 0, 0]])]
    shards = in_memory({"boxes": boxes, "box_flags": flags}, dict(Painted.fields))
    found = torch.tensor(
        [[10, 10, 50, 50, 0.9, 0], [100, 100, 158, 158, 0.8, 0], [101, 100, 160, 160, 0.7, 0.0]]
    )
    for rows, expected in ((found, 1.0), (found[1:], 0.0)):
        each = Detections()
        each.begin(JudgedSet(lambda comm: [], shards))
        each.keep(np.array([0]), Ragged.of_lists([rows]), np.ones(1))
        scalars = each.report({}, each.rows(), groups=Groups(), rounds=0).scalars
        assert scalars["ap"] == pytest.approx(expected)
        assert scalars["recall"] == expected
        assert scalars.get("precision", 0.0) == expected


def test_small_objects_do_not_count_at_the_scale_that_the_network_sees():
    boxes = [np.array([[0, 0, 40, 40], [100, 100, 24, 24], [50, 50, 8, 8]], float)]
    shards = in_memory({"boxes": boxes}, {})
    rows = [[0, 0, 40, 40, 0.9, 0], [50, 50, 58, 58, 0.8, 0], [200, 200, 210, 210, 0.95, 0]]
    for least, expected in ((16.0, 1.0), (10.0, 51 / 101)):  # at half the size a side of 24 pixels is 12
        each = Detections(least=least)
        each.begin(JudgedSet(lambda comm: [], shards))
        each.keep(np.array([0]), Ragged.of_lists([torch.tensor(rows)]), np.array([0.5]))
        scalars = each.report({}, each.rows(), groups=Groups(), rounds=0).scalars
        assert scalars[f"ap50_{least:g}px"] == pytest.approx(expected)
        assert scalars["ap50"] < 0.6


def test_a_set_without_objects_and_a_detector_without_detections():
    shards = in_memory({"boxes": [np.zeros((0, 4)), np.array([[1, 1, 9, 9.0]])]}, dict(Painted.fields))
    nothing = torch.zeros(0, 6)
    each = Detections()
    each.begin(JudgedSet(lambda comm: [], shards))
    each.keep(np.array([0, 1]), Ragged.of_lists([nothing, nothing]), np.ones(2))
    report = each.report({}, each.rows(), groups=Groups(), rounds=0)
    assert report.scalars["ap"] == report.scalars["f1"] == report.scalars["recall"] == 0
    alone = Detections()
    alone.begin(JudgedSet(lambda comm: [], shards))
    alone.keep(np.array([0]), Ragged.of_lists([torch.tensor([[1, 1, 5, 5, 0.5, 0]])]), np.ones(1))
    assert "ap" not in alone.report({}, alone.rows(), groups=Groups(), rounds=0).scalars  # nothing to find


def test_landmarks_of_what_was_found_have_errors():
    boxes = [np.array([[10, 10, 30, 40], [100, 100, 30, 40]], float), np.array([[50, 50, 30, 40.0]])]
    marks = [np.array([[[20, 20], [30, 20]], [[-1, -1], [120, 110]]]), np.full((1, 2, 2), -1.0)]
    names = ("left_eye", "right_eye")
    fields = box_fields(("face",), points=names)
    shards = in_memory({"boxes": boxes, "box_points": marks}, {"box_points": fields["box_points"]})
    first = [[100, 100, 130, 140, 0.9, 0], [10, 10, 40, 50, 0.8, 0], [200, 100, 220, 140, 0.7, 0]]
    said = [[[0, 0], [120, 111]], [[23, 24], [30, 20]], [[0, 0], [0, 0]]]
    each = Detections()
    each.begin(JudgedSet(lambda comm: [], shards))
    points = Ragged.of_lists([torch.tensor(said).float(), torch.zeros(1, 2, 2)])
    found = Ragged.of_lists([torch.tensor(first).float(), torch.tensor([[50, 50, 80, 90, 0.5, 0.0]])])
    each.keep(np.array([0, 1]), found, np.ones(2), points)
    rows = gathered(each.rows(), Comm())
    report = each.report({}, rows, groups=Groups(), rounds=0)
    # of the first face 5 and 0 pixels of 50, of the second its known landmark 1 of 50
    assert report.scalars["landmark_nme"] == pytest.approx((0.05 + 0.02) / 2)
    assert report.scalars["landmark_nme_eyes"] == pytest.approx(2.5 / 10)
    assert report.tables["landmarks"].rows == [["left_eye", 0.1, 1], ["right_eye", 0.01, 2]]
    without = Detections()
    without.begin(JudgedSet(lambda comm: [], shards))
    without.keep(np.array([0, 1]), found, np.ones(2))
    plain = without.report({}, without.rows(), groups=Groups(), rounds=0)
    assert "landmarks" not in plain.tables
    assert plain.scalars == {
        name: value for name, value in report.scalars.items() if not name.startswith("landmark_")
    }
    rows["landmarks"] = Ragged(torch.zeros(4, 3, 2), found.starts)
    with pytest.raises(UserError, match="landmarks: the run has 3 of each object, /sets/painted has 2"):
        each.report({}, rows, groups=Groups(), rounds=0)


def test_bad_predictions_and_sets_are_refused():
    shards = in_memory({"boxes": [np.array([[1, 1, 9, 9.0]])]}, {})
    for row, said in (
        ([1, 1, 5, 5, float("nan"), 0], "not finite"),
        ([1, 1, 5, 5, 0.5, 3], "a class is not one"),
    ):
        each = Detections()
        each.begin(JudgedSet(lambda comm: [], shards))
        each.keep(np.array([0]), Ragged.of_lists([torch.tensor([row])]), np.ones(1))
        with pytest.raises(UserError, match=said):
            each.report({}, each.rows(), groups=Groups(), rounds=0)
    with pytest.raises(UserError, match="has no label boxes"):
        Detections().begin(JudgedSet(lambda comm: [], in_memory({}, {})))
