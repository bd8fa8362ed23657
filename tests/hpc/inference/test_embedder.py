"""A trained run as a helper: its embeddings with a gradient, and runs of no use, named by the key."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_shards.errors import UserError
from hpc.checkpoints import manager, store
from hpc.checkpoints.checkpoint import Checkpoint
from hpc.config.parse import save_config
from hpc.distributed.comm import Comm
from hpc.inference.embedder import embedder_of, resized
from hpc.inference.predictor import load_run
from hpc.task import build_task
from hpc.training.helpers import digests
from launch.cli import main
from launch.options.compose import composed
from launch.start import weights
from tests.support.judged import judged_run, move
from tests.support.runs import make_run
from tests.support.sets import pack_faces, pack_set

KEY = "task.identity_run"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=4, each=2, holdout=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    return judged_run(tmp_path_factory.mktemp("runs") / "faces", shards)


def test_it_embeds_as_its_run_does_and_gradients_reach_the_images(run):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).requires_grad_()
    embedder = embedder_of(str(run), key=KEY)
    found = embedder(pixels)
    np.testing.assert_allclose(found.detach(), load_run(run).embed(images), rtol=1e-4, atol=1e-6)
    found[:, 0].sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert all(p.grad is None for p in embedder.parameters())
    assert embedder(torch.rand(2, 3, 48, 24)).shape == found[:2].shape


@pytest.mark.parametrize(("height", "width"), [(16, 64), (40, 31), (32, 32)])
def test_images_are_resized_as_torch_does(height, width):
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(images, 32), wanted, rtol=1e-5, atol=1e-5)


def test_a_task_gets_its_helper_by_the_folder_that_submit_writes(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    config = weights.with_helpers(composed(["task=cyclegan", "smoke=true", f"{KEY}={run.name}", "runs=."]))
    assert config.task["identity_run"] == str(run)
    assert list(build_task(config).frozen()) == ["identity"]


def test_a_run_that_is_of_no_use_is_refused_at_submit_in_a_line(
    run, shards, tmp_path, tmp_path_factory, capsys
):
    other = make_run(tmp_path / "gender", shards, task={"name": "gender", "kind": "classifier"})
    empty = make_run(tmp_path / "young", shards)
    faces = pack_faces(tmp_path / "faces", "cyclegan", size=24)
    words = ["submit", "task=cyclegan", "smoke=true", "cluster=local", f"data.train={faces / 'train'}"]
    words += ["name=bad", f"runs={tmp_path / 'runs'}", "prepare=true"]
    for place, said in (
        (tmp_path / "gone", "is not a run directory"),
        (other, "is a run of task=gender: give one of task=siamese"),
        (empty, "has no checkpoint yet: wait for its first"),
    ):
        assert main([*words, f"{KEY}={place}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{KEY}={place}: " in line
        assert said in line
        assert not (tmp_path / "runs").exists()


def test_a_run_that_was_moved_away_is_named_at_a_resume_and_by_the_ranks(run, tmp_path):
    moved = Path(shutil.copytree(run, tmp_path / "faces", symlinks=True))
    config = weights.with_helpers(composed(["task=cyclegan", "smoke=true", f"{KEY}={moved}"]))
    moved.rename(tmp_path / "elsewhere")
    for refuse in (weights.with_helpers, lambda config: embedder_of(config.task["identity_run"], key=KEY)):
        with pytest.raises(UserError, match=f"^{KEY}={moved}: .* is not a run directory"):
            refuse(config)
    assert weights.with_helpers(replace(config, task=config.task | {"identity_run": ""})).task


@pytest.fixture
def translating(run, tmp_path) -> tuple[Path, Path]:
    """An untrained run of cyclegan that is saved once, and the copy of a run that helps it."""
    helper = Path(shutil.copytree(run, tmp_path / "helper", symlinks=True))
    words = ["task=cyclegan", "smoke=true", "task.width=2", f"{KEY}={helper}"]
    config = composed(words)
    path = tmp_path / "horses"
    path.mkdir()
    save_config(config, path / "config.yaml")
    task = build_task(config)
    players = {name: net.state_dict() for name, net in task.players().items()}
    saved = Checkpoint(48, 3, players=players, task=task.state())
    saved.meta = manager.meta(config, task, Comm()) | {"metrics": {}, "helpers": digests(task.frozen())}
    store.save(path, saved)
    return path, helper


def test_a_run_is_judged_by_the_helper_that_it_had_alone(translating):
    path, helper = translating
    model = load_run(path, helpers=True)
    assert set(model.nets) == set(model.untrained().nets) == {"G", "D", "identity"}
    embeds = load_run(helper)
    move(embeds.nets["net"], 7)
    players = {"net": embeds.nets["net"].state_dict()}
    later = Checkpoint(480, 30, players=players, task=embeds.task.state())  # it trained on, and became better
    later.meta = manager.meta(embeds.config, embeds.task, Comm()) | {"metrics": {"eer": 0.01}}
    store.save(helper, later)
    with pytest.raises(UserError, match=r"the frozen helper identity has the digest .* of clock 48 was made"):
        load_run(path, helpers=True)
    assert set(load_run(path).nets) == {"G", "D"}


def test_a_run_translates_without_its_helper(translating, tmp_path):
    path, helper = translating
    helper.rename(tmp_path / "elsewhere")
    model = load_run(path)
    images = np.zeros((2, 24, 24, 3), np.uint8)
    assert model.predict(images)["image"].shape == (2, 3, 24, 24)
    assert main(["export", str(path), f"out={tmp_path / 'net'}", "onnx=false"]) == 0
    with pytest.raises(UserError, match=f"^{KEY}={helper}: .* is not a run directory"):
        load_run(path, helpers=True)
