"""`rostro verify`: verdicts by the stored threshold, any image format, no verdict without a threshold."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from launch.cli import main
from tests.support.judged import judged_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=12, each=4, holdout=0.5)


def images(shards: Path) -> tuple[Path, Path, Path]:
    """Two images of one identity and one of another."""
    folder = shards.parent / "pictures"
    a, b, other = (
        "person000/person000_0000.jpg",
        "person000/person000_0001.jpg",
        "person001/person001_0000.jpg",
    )
    return folder / a, folder / b, folder / other


@pytest.mark.parametrize(("loss", "unit"), [("supcon", "cosine"), ("bce", "probability")])
def test_the_verdict_is_the_threshold_of_evaluate(tmp_path, shards, capsys, loss, unit):
    run = judged_run(tmp_path / "run", shards, loss=loss)
    a, b, other = map(str, images(shards))
    assert main(["verify", str(run), a, b]) == 0
    said = capsys.readouterr().out
    assert "no threshold yet" in said
    assert "same person" not in said
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    capsys.readouterr()
    answers = []
    for second in (a, b, other):
        assert main(["verify", str(run), a, second, "json=true"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    scores = [answer["score"] for answer in answers]
    assert scores[0] == max(scores)
    assert all(answer["same"] == (answer["score"] >= answer["threshold"]) for answer in answers)
    assert {answer["unit"] for answer in answers} == {unit}
    assert answers[0]["same"]
    if unit == "cosine":
        assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert main(["verify", str(run), a, a]) == 0
    assert capsys.readouterr().out.startswith(f"same person: {unit}")


def test_a_threshold_serves_only_its_checkpoint(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "run", shards)
    a, b, _ = map(str, images(shards))
    main(["evaluate", str(run), "bootstrap=0"])
    capsys.readouterr()
    assert main(["verify", str(run), a, b, "checkpoint=last"]) == 0
    said = capsys.readouterr().out
    assert "the threshold is of checkpoint 160 (ema)" in said
    assert f"`rostro evaluate {run} checkpoint=320 weights=ema`" in said


def test_any_format_of_an_image_gives_the_same_answer(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "run", shards)
    grey = cv2.imread(str(images(shards)[0]), cv2.IMREAD_GRAYSCALE)
    files = [tmp_path / name for name in ("face.png", "face.pgm", "deep.png", "face.tiff")]
    for file in files:
        cv2.imwrite(str(file), grey.astype(np.uint16) * 257 if file.stem == "deep" else grey)
    scores = []
    for file in files:
        assert main(["verify", str(run), str(files[0]), str(file), "json=true"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["score"])
    assert scores == pytest.approx([1.0] * 4, abs=1e-4)


def test_what_is_no_image_is_named(tmp_path, shards, capsys):
    run = judged_run(tmp_path / "run", shards)
    good, text = str(images(shards)[0]), tmp_path / "note.jpg"
    text.write_text("no image")
    os.mkfifo(tmp_path / "fifo.jpg")
    others = [tmp_path, tmp_path / "gone.jpg", tmp_path / "fifo.jpg", Path("/dev/zero")]
    for bad in map(str, (text, *others)):
        assert main(["verify", str(run), good, bad]) == 2
        error = capsys.readouterr().err
        assert bad in error
        assert error.count("\n") == 1
    assert main(["verify", str(run), good]) == 2
    assert "b is missing: add B" in capsys.readouterr().err
