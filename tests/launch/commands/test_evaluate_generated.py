"""`rostro evaluate` of a run that makes images: the command, two kinds of features, several ranks."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.shard_format.shard_set import ShardSet
from hpc.inference.predictor import load_run
from launch.cli import main
from tests.hpc.evaluation.test_features import has_lite0
from tests.support.generating import scalars_of_run
from tests.support.generating_run import generating_run
from tests.support.judged import judged_run
from tests.support.ranks import launch
from tests.support.sets import pack_set

YARDSTICKS = ["real, one half by the other", *(f"real, blurred to {side} pixels" for side in (32, 16, 8))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `shards`, an embedder `faces`, and runs of dcgan and stylegan of shards/train."""
    root = tmp_path_factory.mktemp("judged")
    shards = pack_set(root, identities=8, each=4, holdout=0.5)
    judged_run(root / "faces", shards)
    sets = [f"data.train={shards / 'train'}", f"data.eval={shards / 'eval'}"]
    for job in ("dcgan", "stylegan"):
        generating_run(root / job, job, *sets)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def report_of(run: Path, name: str = "pictures-eval") -> dict:
    return json.loads((run / "evaluations" / name / "report.json").read_text())


def by_embedder(folder: Path) -> list[str]:
    return [f"features=run:{folder / 'faces'}", "samples=20"]


def test_samples_stand_beside_yardsticks_and_their_nearest_training_images(folder, capsys):
    run = folder / "dcgan"
    assert main(["evaluate", str(run), *by_embedder(folder), "yardsticks=true"]) == 0
    said = capsys.readouterr().out
    assert "nearest.png" in said
    assert "resamples" not in said  # there are no intervals
    report = report_of(run)
    assert report["extractor"] == "run faces at 160 (ema)"
    judged = report["evaluators"]["generated"]
    distances, nearest = judged["tables"]["distances"], judged["tables"]["nearest"]
    assert [row[0] for row in distances["rows"]] == ["generated", *YARDSTICKS]
    assert distances["rows"][0][1] == judged["scalars"]["frechet"] > 0
    assert distances["rows"][0][-1] == 20
    training = ShardSet.open(folder / "shards" / "train")
    known = {training.member(number).removesuffix(".jpg") for number in range(len(training))}
    assert len(nearest["rows"]) == 12
    assert {name for row in nearest["rows"] for name in row[1:4]} <= known
    assert nearest["note"].startswith(f"nearest of {len(training)} images of the training set pictures")
    sheet = cv2.imread(str(run / "evaluations" / "pictures-eval" / "nearest.png"))
    assert min(sheet.shape[:2]) > 6 * 96
    page = (run / "evaluations" / "pictures-eval" / "report.html").read_text()
    assert "not FID" in page
    assert page.count("data:image/png;base64,") == 1


def test_the_training_set_itself_is_named_so(folder):
    run, train = folder / "dcgan", folder / "shards" / "train"
    assert main(["evaluate", str(run), f"data={train}", *by_embedder(folder)]) == 0
    judged = report_of(run, "pictures-train")["evaluators"]["generated"]
    assert "images of the training set" in judged["tables"]["nearest"]["note"]
    assert [row[0] for row in judged["tables"]["distances"]["rows"]] == ["generated"]


@pytest.mark.parametrize("job", ["dcgan", "stylegan"])
def test_the_digits_are_those_of_1_2_and_5_ranks(folder, job, cache):
    run, shards = folder / job, folder / "shards" / "eval"
    assert main(["evaluate", str(run), *by_embedder(folder), "side=8"]) == 0
    typed = {"features": f"run:{folder / 'faces'}", "samples": 20, "side": 8}
    wanted = report_of(run)["evaluators"]["generated"]["scalars"]
    for world in (1, 2, 5):
        own = str(cache / str(world))  # no features are kept from one to the next
        assert launch(scalars_of_run, world, str(run), str(shards), own, typed) == [wanted] * world


def test_styles_are_judged_as_they_were_trained(folder):
    model = load_run(folder / "stylegan")
    assert model.config.task["truncation"] == 0.7
    batch = Batch.of_positions(torch.arange(4), 0)
    with torch.no_grad():
        found = model.task.predict(model.nets, batch)["image"]
        wanted = model.task.generator(model.nets, truncation=1.0).at(batch).clamp(-1, 1)
        short = model.task.generator(model.nets).at(batch).clamp(-1, 1)
    torch.testing.assert_close(found, wanted)
    assert (short - wanted).abs().max() > 1e-3


@has_lite0
def test_published_features_judge_them_too(folder):
    run = folder / "dcgan"
    assert main(["evaluate", str(run), "features=lite0:32", "samples=16", "references=12"]) == 0
    report = report_of(run)
    assert report["extractor"] == "lite0 at 32 pixels"
    found = report["evaluators"]["generated"]["scalars"]
    assert list(found) == ["frechet", "kid", "precision", "recall", "class_score"]
    assert np.isfinite(list(found.values())).all()
    assert found["frechet"] > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "features is missing: type features=lite0"),
        (["features=lite1"], "features=lite1 is not known: type lite0"),
        (["features=run:/nowhere"], "/nowhere"),
        (["features=inception:/nowhere.pt"], "/nowhere.pt"),
        (["features=lite0", "samples=-1"], "samples=-1 is not 0 or more"),
        (["pairs=a.txt"], "pairs=a.txt does not belong to task dcgan"),
    ],
)
def test_what_cannot_be_judged_is_one_line(folder, words, said, capsys):
    assert main(["evaluate", str(folder / "dcgan"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_words_of_generated_images_do_not_belong_to_faces(folder, capsys):
    assert main(["evaluate", str(folder / "faces"), "features=lite0"]) == 2
    assert "features=lite0 does not belong to task siamese" in capsys.readouterr().err
