"""`rostro evaluate` of a generator with an embedder trained here: features=run:RUN."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from data_shards.shard_format.shard_set import ShardSet
from hpc.evaluation.base import Request
from hpc.evaluation.generated import Generated
from hpc.inference.judge import judge
from hpc.inference.predictor import Predictor, load_run
from hpc.inference.run_features import of_run, open_any
from tests.support.generating import Dreams
from tests.support.judged import judged_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("embedder")
    judged_run(root / "run", pack_set(root, identities=8, each=4))
    return root


def generator(folder: Path, out: Path) -> Predictor:
    """A generator as `rostro evaluate` loads one; its training set is that of the embedder."""
    torch.manual_seed(0)
    task = Dreams(lambda: Generated(samples=14, side=16, block=5))
    config = load_run(folder / "run").config
    task.config = config
    return Predictor(task, {"G": nn.Linear(6, 768)}, config, out, 160, "ema", {})


def test_an_embedder_gives_its_embeddings_as_features(folder):
    network, model = open_any(f"run:{folder / 'run'}"), load_run(folder / "run")
    assert network.name == f"run {model.name}"
    side = model.config.data.size
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    features, probable = network(tensor)
    np.testing.assert_allclose(features, model.embed(images), rtol=1e-4, atol=1e-6)
    assert probable is None
    assert open_any(f"run:{folder / 'run'}", network.digest[:16]).digest == network.digest
    with pytest.raises(UserError, match="but features_sha256=ffffffff: give the run that was meant"):
        open_any(f"run:{folder / 'run'}", "ffffffff")
    with pytest.raises(UserError, match="gives no embedding: give a run of task=siamese"):
        of_run(generator(folder, folder / "run"))
    with pytest.raises(UserError, match="none"):
        open_any(f"run:{folder / 'none'}")


def test_a_generator_is_judged_beside_the_images_of_its_training(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = generator(folder, tmp_path / "gan")
    shards = ShardSet.open(folder / "shards" / "eval")
    word = f"run:{folder / 'run'}"
    content, reports = judge(model, Request(shards, {}, rounds=0), {"features": word})
    report = reports["generated"]
    assert list(report.scalars) == ["frechet", "kid", "precision", "recall"]
    assert report.facts["extractor"].startswith("run run at 160")
    assert content["pictures_drawn"] == ["nearest.png"]
    written = json.loads((Path(content["folder"]) / "report.json").read_text())
    assert written["extractor_sha256"] == report.facts["extractor_sha256"]
    assert "images of the training set" in report.tables["nearest"].note
    training = ShardSet.open(folder / "shards" / "train")
    known = {training.member(number).removesuffix(".jpg") for number in range(len(training))}
    assert {cell for row in report.tables["nearest"].rows for cell in row[1:4]} <= known
    page = (Path(content["folder"]) / "report.html").read_text()
    assert "Frechet distance (not FID" in page
    # the same again, from what was kept
    assert (
        judge(model, Request(shards, {}, rounds=0), {"features": word})[1]["generated"].scalars
        == report.scalars
    )
