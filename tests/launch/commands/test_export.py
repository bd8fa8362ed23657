"""`rostro export`: weights for the plain modules, an honest card, ONNX that gives the same numbers."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_shards.images import pixels
from data_shards.shard_format.shard_set import ShardSet
from hpc.inference.predictor import load_run
from launch.cli import main
from models.backbones import build_trunk
from models.siamese import SiameseNet
from tests.support.judged import judged_run
from tests.support.modes import odd, shared_umask
from tests.support.sets import pack_set
from tests.support.small_set import photo


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), identities=12, each=4, holdout=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    run = judged_run(tmp_path_factory.mktemp("runs") / "faces", shards)
    assert main(["evaluate", str(run), "bootstrap=20"]) == 0
    return run


def images(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def tensor(images: np.ndarray, card: dict) -> torch.Tensor:
    """As the card says: RGB, n c h w, x / 127.5 - 1."""
    assert card["preprocessing"]["from_8_bit"] == "x / 127.5 - 1"
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_weights_and_card_rebuild_the_network(run, shards, tmp_path, capsys):
    assert main(["export", str(run), f"out={tmp_path / 'net'}", "onnx=false"]) == 0
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["model.json", "model.safetensors"]
    card = json.loads((tmp_path / "net" / "model.json").read_text())
    net = SiameseNet(*build_trunk(card["task"]["trunk"]), card["task"]["embedding"]).eval()
    net.load_state_dict(load_file(tmp_path / "net" / "model.safetensors"))
    wanted = load_run(run).embed(images(0, 3))
    with torch.no_grad():
        np.testing.assert_allclose(net(tensor(images(0, 3), card)).numpy(), wanted, atol=1e-6)
    assert card["checkpoint"] == {"images": 160, "weights": "ema", "updates": 10}
    assert card["data"]["manifest_sha256"] == ShardSet.open(shards / "train").digest
    assert card["data"]["licence"]
    assert card["metrics"] == {"eer": 0.1}
    assert card["evaluations"][0]["split"] == "eval"
    assert card["threshold"]["threshold"] == card["evaluations"][0]["thresholds"]["eer"]


def test_figures_of_another_checkpoint_stay_out_of_the_card(run, tmp_path):
    assert main(["export", str(run), f"out={tmp_path}", "onnx=false", "checkpoint=last"]) == 0
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["checkpoint"]["images"] == 320
    assert (card["evaluations"], card["threshold"]) == ([], None)


def test_onnx_gives_the_same_embeddings_at_any_batch_size(run):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = run / "export"
    with shared_umask():
        assert main(["export", str(run)]) == 0
    assert odd(folder) == {}
    card = json.loads((folder / "model.json").read_text())
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    model = load_run(run)
    for n in (1, 2, 5):
        found = session.run(card["onnx"]["outputs"], {"images": tensor(images(n, n), card).numpy()})
        np.testing.assert_allclose(found[0], model.embed(images(n, n)), atol=1e-4)
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("loss", ["supcon", "bce"])
def test_the_card_s_example_gives_the_score_and_verdict_of_verify(
    loss, shards, tmp_path, capsys, monkeypatch
):
    """Also of images larger than the network's, of any shape: one resize everywhere."""
    pytest.importorskip("onnxruntime")
    run = judged_run(tmp_path / "run", shards, loss=loss)
    assert main(["evaluate", str(run), "bootstrap=0"]) == 0
    assert main(["export", str(run)]) == 0
    card = json.loads((run / "export" / "model.json").read_text())
    assert card["preprocessing"]["resize"] == pixels.KERNEL
    assert (
        card["preprocessing"]["faces"]
        == "cut faces as the training set pictures has them (source folder, images not cut)"
    )
    assert card["onnx"]["score"]["unit"] == ("probability" if loss == "bce" else "cosine")
    first, second, third = tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "c.jpg"
    for number, (path, shape) in enumerate([(first, (250, 250)), (second, (301, 200)), (third, (20, 24))]):
        cv2.imwrite(str(path), photo(number, *shape))
    for pair in ([first, second], [second, third], [first, first]):
        words = list(map(str, pair))
        capsys.readouterr()
        assert main(["verify", str(run), *words, "json=true"]) == 0
        wanted = json.loads(capsys.readouterr().out)
        monkeypatch.setattr(sys, "argv", ["example.py", *words])
        runpy.run_path(str(run / "export" / card["onnx"]["score"]["example"]))
        score, _, verdict = capsys.readouterr().out.strip().partition(" ")
        assert float(score) == pytest.approx(wanted["score"], abs=1e-3)
        if abs(wanted["score"] - wanted["threshold"]) > 1e-3:
            assert verdict == ("same person" if wanted["same"] else "different people")


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["export", str(run), f"out={tmp_path / 'file' / 'net'}", "onnx=false"]) == 2
    error = capsys.readouterr().err
    assert "out=" in error
    assert error.count("\n") == 1


def test_a_training_set_that_moved_is_said_not_hidden(shards, tmp_path, capsys):
    run = judged_run(tmp_path / "run", tmp_path / "moved")
    assert main(["export", str(run), "onnx=false"]) == 0
    assert "warning: the card has no licence note" in capsys.readouterr().err
    card = json.loads((run / "export" / "model.json").read_text())
    assert "has no manifest.json" in card["data"]["missing"]


def test_all_that_is_written_has_the_mode_that_the_umask_says(tmp_path):
    with shared_umask():
        shards = pack_set(tmp_path, identities=12, each=4, holdout=0.5)
        run = judged_run(tmp_path / "runs" / "faces", shards)
        assert main(["evaluate", str(run), "bootstrap=20"]) == 0
        assert main(["export", str(run), "onnx=false"]) == 0
        assert main(["info", str(shards)]) == 0
        log = f"Path({str(run)!r}, 'log')"
        job = f"from launch.job import Job; from pathlib import Path; Job._log_to(None, {log})"
        subprocess.run([sys.executable, "-c", job], check=True, cwd=Path(__file__).parents[3])
    written = {path.name for path in tmp_path.rglob("*")}
    assert written >= {"model.safetensors", "roc.png", "report.json", "log"}
    assert odd(tmp_path) == {}
