"""`rostro evaluate` of an autoencoder: reconstructions by themselves, generated images where features are."""

import json
from pathlib import Path

import pytest

from hpc.inference.judge import evaluators_of
from hpc.inference.predictor import load_run
from launch.cli import main
from tests.support.generating_run import generating_run
from tests.support.judged import judged_run
from tests.support.sets import pack_faces, pack_set


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    faces = pack_faces(folder / "faces", "gender", identities=12, each=6)
    return generating_run(
        folder / "vae", "vae", f"data.train={faces / 'train'}", f"data.eval={faces / 'eval'}"
    )


def reported(run: Path) -> dict:
    return json.loads(next((run / "evaluations").glob("*/report.json")).read_text())


def test_reconstructions_have_intervals_and_groups(run, capsys):
    assert main(["evaluate", str(run), "bootstrap=100", "groups=gender", "support=5"]) == 0
    assert "reconstruction" in capsys.readouterr().out
    content = reported(run)
    assert list(content["evaluators"]) == ["reconstruction"]
    found = content["evaluators"]["reconstruction"]
    for name in ("ssim", "l1"):
        low, high = found["intervals_95"][name]
        assert low < found["scalars"][name] < high
    assert "ssim_gap_gender" in found["scalars"]
    pictures = {path.name for path in (run / "evaluations").glob("*/*.png")}
    assert any("reconstructions" in name for name in pictures)


def test_generated_images_are_judged_too_where_features_are_typed(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    embedder = judged_run(tmp_path / "embedder", pack_set(tmp_path / "set", identities=8, each=4))
    words = [f"features=run:{embedder}", "samples=20", "references=20", "bootstrap=0"]
    assert main(["evaluate", str(run), *words]) == 0
    found = reported(run)["evaluators"]
    assert set(found) == {"generated", "reconstruction"}
    assert found["generated"]["scalars"]["frechet"] > 0


def test_words_of_generated_images_ask_for_them(run, capsys):
    model = load_run(run)
    assert list(evaluators_of(model, {})) == ["reconstruction"]
    assert set(evaluators_of(model, {"features": "lite0"})) == {"generated", "reconstruction"}
    assert main(["evaluate", str(run), "samples=10"]) == 2
    assert "features" in capsys.readouterr().err
