"""Pictures of where a network looks: `rostro predict explain=true`, and the mistakes in a report."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_shards.shard_format.shard_set import ShardSet
from hpc.evaluation.base import Report
from hpc.inference.explain import surest_mistakes
from hpc.inference.gradcam import Answer
from hpc.plots.heat import Cell, draw_sheet, overlay
from launch.cli import main
from tests.support.age_task import age_run, faces
from tests.support.judged import judged_run
from tests.support.small_set import jpeg, photo


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return faces(tmp_path_factory.mktemp("set") / "faces")


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    return age_run(tmp_path_factory.mktemp("runs") / "age", shards)


def test_predict_draws_an_overlay_for_each_answer(run, tmp_path, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(photo(1, 90, 70)))
    (tmp_path / "in" / "deep" / "b.jpg").write_bytes(jpeg(photo(2, 64, 64)))
    words = [str(run), f"in={tmp_path / 'in'}", "threads=1"]
    assert main(["predict", *words, f"out={tmp_path / 'plain'}"]) == 0
    out = tmp_path / "in" / "out"  # a second time, what was drawn is not taken for images
    for _ in range(2):
        assert main(["predict", *words, f"out={out}", "explain=true"]) == 0
    assert (out / "predictions.csv").read_text() == (tmp_path / "plain" / "predictions.csv").read_text()
    assert not (tmp_path / "plain" / "explained").exists()
    drawn = sorted(str(path.relative_to(out / "explained")) for path in (out / "explained").rglob("*.jpg"))
    assert drawn == ["a.jpg.jpg", "deep/b.jpg.jpg"]
    picture = cv2.imread(str(out / "explained" / "a.jpg.jpg"))
    assert picture.shape[1] == 3 * 256  # the image, age, gender
    assert picture.shape[0] > 256
    plain, age, gender = np.split(picture[:256].astype(int), 3, axis=1)
    assert np.abs(plain - gender).mean() > 2
    assert np.abs(age - gender).mean() > 2
    blank, *captions = np.split(picture[262:], 3, axis=1)  # below each overlay what it speaks for, whole
    assert blank.min() > 200
    for caption in captions:
        assert caption[:, :200].min() < 120
        assert caption[:, 240:].min() > 200


def test_a_task_without_such_answers_is_refused_before_anything_is_written(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "siamese", shards / "train")
    (tmp_path / "a.jpg").write_bytes(jpeg(photo(1, 90, 70)))
    words = [str(run), f"in={tmp_path / 'a.jpg'}", f"out={tmp_path / 'out'}"]
    assert main(["predict", *words, "explain=true"]) == 2
    said = capsys.readouterr().err
    assert "explain=true: task siamese of siamese answers by no class, bits or number: leave it out" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_report_shows_the_surest_mistakes(run, shards, capsys):
    # Of the training people some are women and some are men, so whatever an untrained network says is wrong
    assert main(["evaluate", str(run), f"data={shards / 'train'}", "bootstrap=0"]) == 0
    folder = next((run / "evaluations").iterdir())
    content = json.loads((folder / "report.json").read_text())
    assert {"gender-mistakes.png", "age-mistakes.png"} <= set(content["pictures_drawn"])
    sheet = cv2.imread(str(folder / "age-mistakes.png"))
    samples = len(ShardSet.open(shards / "train"))
    assert sheet.shape[1] == 8 + 4 * (2 * 128 + 8)
    assert sheet.shape[0] == 2 * 8 + 16 + -(-min(samples, 24) // 4) * (128 + 2 * 16 + 8)
    assert (folder / "report.html").read_text().count("mistakes.png of") == 2


def test_the_surest_mistakes_come_first():
    answer = Answer("race", "race", "class", ("a", "b", "c"))
    rows = {
        "ids": [5, 6, 7, 8],
        "predicted": [0, 1, 2, 1],
        "truth": [0, 2, 0, 0],
        "confidence": [1, 0.4, 0.9, 0.4],
    }
    found = surest_mistakes(answer, None, Report(rows={name: np.array(of) for name, of in rows.items()}))
    assert (found.ids.tolist(), found.targets.tolist(), found.many) == ([7, 6, 8], [2, 1, 1], 3)
    assert found.lines[0] == ["said c 0.900", "is a"]
    assert (
        len(surest_mistakes(answer, None, Report(rows={k: np.array(v) for k, v in rows.items()}), 1).ids) == 1
    )


def test_the_largest_errors_come_first():
    rows = {
        "ids": np.array([1, 2, 3]),
        "predicted": np.array([30.0, 5, 50]),
        "truth": np.array([31.0, 25, 40]),
    }
    found = surest_mistakes(Answer("age", "age", "value"), None, Report(rows=rows), 2)
    assert found.ids.tolist() == [2, 3]
    assert found.lines == [["said 5", "is 25"], ["said 50", "is 40"]]


def test_the_surest_wrong_bits_come_first_and_unknown_ones_are_no_mistakes():
    class Judged:
        def rows(self):
            logits = np.array([[3.0, -1], [-4, 2], [5, 5]], np.float32)
            return {
                "ids": np.array([9, 4, 7]),
                "logits": logits,
                "labels": np.array([[0, 1], [1, 1], [-1, 1]]),
            }

    answer = Answer("marks", "marks", "bits", ("hat", "beard"))
    found = surest_mistakes(answer, Judged(), Report())
    assert found.ids.tolist() == [4, 9, 9]
    assert found.targets.tolist() == [0, 0, 1]
    assert found.lines[0] == ["hat", "said 0.018, is 1"]


def test_an_overlay_leaves_cold_places_as_they_are(tmp_path):
    image = photo(1, 40, 30)
    heat = np.zeros((30, 40), np.float32)
    heat[:10] = 1
    drawn = overlay(image, heat)
    np.testing.assert_array_equal(drawn[10:], image[10:])
    assert np.abs(drawn[:10].astype(int) - image[:10]).mean() > 20
    draw_sheet(tmp_path / "sheet.png", [Cell(drawn, ["ñandú 0.9 " * 9, "x"])] * 5, title="faces", columns=3)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    assert sheet.shape == (16 + 16 + 2 * (30 + 32 + 8), 8 + 3 * 48, 3)
    np.testing.assert_array_equal(sheet[32:62, 8:48], drawn)
    draw_sheet(tmp_path / "none.png", [], title="no mistakes")
    assert cv2.imread(str(tmp_path / "none.png")) is not None
