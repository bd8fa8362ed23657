"""`rostro convert mesonet`: published weights become a run that all commands take."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.sources.procedural import source
from hpc.inference.predictor import load_run
from hpc.runs.run_dir import RunDir
from launch.audit.faces import LabelledFaces
from launch.cli import main
from launch.options.conf import plan_of_task
from launch.start import snapshot
from tests.support import keras_mesonet, runs
from tests.support.image_folders import REAL, needs_real
from tests.support.small_set import photo

MESONET = REAL / "deepfake" / "MesoNet"


@pytest.fixture(scope="module", autouse=True)
def _linked_code() -> None:
    """The copy of the code is another test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "copy_code", lambda code: code.symlink_to(runs.ROOT))
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> tuple[Path, dict]:
    """A file as the authors publish it, with drawn numbers, and those numbers."""
    path, drawn = tmp_path_factory.mktemp("weights") / "Meso4_X.h5", keras_mesonet.random_weights("meso4")
    keras_mesonet.write(path, "meso4", drawn)
    return path, drawn


@pytest.fixture(scope="module")
def run(tmp_path_factory, weights) -> Path:
    path = tmp_path_factory.mktemp("runs") / "meso4"
    assert main(["convert", "mesonet", str(weights[0]), f"out={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Drawn faces of 256 pixels, labelled as real or fake."""
    folder = tmp_path_factory.mktemp("sets") / "faces"
    drawn = source("", split="", identities=12, per_identity=1, size=256, seed=0)
    request = Request(size=256, holdout=0.5, name="faces")
    pack(LabelledFaces(drawn, plan_of_task("deepfake").labels), folder, request, workers=1)
    return folder


def predictions(run: Path, place: Path, out: Path) -> dict[str, tuple[str, float]]:
    assert main(["predict", str(run), f"in={place}", f"out={out}", "threads=1"]) == 0
    with open(out / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["image"]: (row["deepfake"], float(row["deepfake_confidence"])) for row in rows}


def test_predict_says_what_the_authors_network_says(run, weights, tmp_path):
    (tmp_path / "in").mkdir()
    images = np.stack([photo(number, 256, 256) for number in range(3)])
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), image[:, :, ::-1])
    real = keras_mesonet.probability("meso4", weights[1], images / 255)
    found = predictions(run, tmp_path / "in", tmp_path / "out")
    for number, chance in enumerate(real):
        name, sure = found[f"{number}.png"]
        assert name == ("real" if chance > 0.5 else "fake")
        assert sure == pytest.approx(max(chance, 1 - chance), abs=1e-5)


def test_the_run_says_where_it_comes_from(run, weights, capsys):
    made = RunDir.open(run)
    assert made.status()["state"] == "finished"
    assert made.config().data.fit == "stretch"  # as the authors do with an image that is not square
    assert json.loads(made.converted_file.read_text())["file"] == "Meso4_X.h5"
    assert json.loads(made.git_file.read_text())["command"][:4] == [
        "rostro",
        "convert",
        "mesonet",
        str(weights[0]),
    ]
    assert load_run(run).name == "meso4"
    assert main(["status", f"runs={run.parent}"]) == 0
    assert main(["info", str(run)]) == 0
    assert "meso4" in capsys.readouterr().out
    assert main(["resume", str(run)]) == 2
    assert "run meso4 is finished" in capsys.readouterr().err


def test_export_and_evaluate_take_it(run, faces, tmp_path, capsys):
    assert main(["export", str(run), f"out={tmp_path / 'net'}"]) == 0
    card = json.loads((tmp_path / "net" / "model.json").read_text())
    assert card["data"]["converted"]["network"] == "meso4"
    assert card["preprocessing"]["crop"] == "none: it is squeezed to a square"
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "net" / "model.onnx")
    (logits,) = session.run(["deepfake"], {"images": image})
    shown = ((image[0].transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    np.testing.assert_allclose(load_run(run).predict(shown[None])["deepfake"], logits, atol=0.05)
    capsys.readouterr()
    assert main(["evaluate", str(run), f"data={faces / 'eval'}", "bootstrap=0"]) == 0
    report = json.loads(next((run / "evaluations").glob("*/report.json")).read_text())
    assert 0 <= report["evaluators"]["deepfake"]["scalars"]["accuracy"] <= 1
    assert main(["evaluate", str(run)]) == 2
    assert "held no people out; add data=DIR" in capsys.readouterr().err


def test_a_training_begins_with_it(run, faces, tmp_path, capsys):
    words = [
        "submit",
        "task=deepfake",
        f"init.run={run}",
        f"data.train={faces / 'train'}",
        "images=64",
        "prepare=true",
    ]
    words += [f"runs={tmp_path}", "name=tuned", "cluster=local", "batch=2", "optim.warmup=2"]
    assert main(words) == 0
    record = json.loads((tmp_path / "tuned" / "init.json").read_text())
    assert (record["run"], record["clock"]) == (str(run), 0)
    assert main([*words[:-3], "name=other", "batch=2", "optim.warmup=2", "task.backbone=mesoinception4"]) == 2
    assert f"init.run={run} has another architecture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mesonet"], "file is missing"),
        (["mesonet", "{h5}"], "out is missing"),
        (["keras", "{h5}", "out={new}"], "kind=keras is not known: use mesonet"),
        (["mesonet", "{h5}", "out={old}"], "exists: give another name, or delete it"),
        (["mesonet", __file__, "out={new}"], "is not a readable HDF5 file"),
        (["mesonet", "{h5}", "out={new} $(x)"], "name="),
    ],
)
def test_refusals_leave_nothing(words, message, weights, tmp_path, capsys):
    (tmp_path / "old").mkdir()
    places = {"h5": weights[0], "new": tmp_path / "runs" / "new", "old": tmp_path / "old"}
    assert main(["convert", *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@needs_real
@pytest.mark.parametrize("name", ["Meso4_DF", "MesoInception_DF"])
def test_the_authors_images_are_all_told_apart_by_the_matching_weights(name, tmp_path):
    run = tmp_path / name
    assert main(["convert", "mesonet", str(MESONET / "weights" / f"{name}.h5"), f"out={run}"]) == 0
    found = predictions(run, MESONET / "test_images", tmp_path / "out")
    assert len(found) == 4
    for image, (said, sure) in found.items():
        assert said == ("real" if image.startswith("real/") else "fake")
        assert sure > 0.9
