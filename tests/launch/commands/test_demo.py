"""The demo: its verdict, and one pass through the real commands with next to no training."""

import pytest

from launch.cli import main
from launch.commands import demo
from launch.options.key_value import parse
from tests.support.image_folders import REAL, needs_real
from tests.support.sets import write_folders


def report(network: float, pixels: float) -> dict:
    rows = [
        {"name": name, "eer": eer, "auc": 1 - eer} for name, eer in (("run", network), ("pixels", pixels))
    ]
    return {"rows": rows, "folder": "runs/demo/evaluations/faces"}


@pytest.mark.parametrize(
    ("network", "pixels", "message"),
    [
        (0.19, 0.40, ""),
        (0.21, 0.40, "the network's EER 0.210 is above half the pixels' 0.400"),
        (0.05, 0.24, "the pixels' EER 0.240 is below 0.25"),
    ],
)
def test_verdict(network, pixels, message, capsys):
    assert demo.verdict(report(network, pixels)) == bool(message)
    assert message in capsys.readouterr().err


def test_summary_names_the_figures_and_places(tmp_path):
    found = report(0.1, 0.4)
    found["rows"][0]["name"] = "demo-20260101-120000 (ema weights at 32,000 images)"
    text = demo.summary(found, tmp_path / "runs" / "demo", 125.0)
    title, network, pixels = text.splitlines()[:3]
    assert network.endswith("  0.100   0.900")
    assert pixels.endswith("  0.400   0.600")
    assert len(title) == len(network) == len(pixels)  # aligned, however long the names are
    assert f"tensorboard --logdir {tmp_path / 'runs'}" in text
    assert "2.1 minutes" in text


@pytest.mark.timeout(300)
def test_own_images_through_the_real_commands(tmp_path, capfd):
    images = write_folders(tmp_path / "people", identities=20, each=5)
    words = [
        f"data={images}",
        "images=64",
        f"out={tmp_path / 'demo'}",
        f"runs={tmp_path / 'runs'}",
        "procs=1",
    ]
    assert main(["demo", *words]) == 0  # no verdict on somebody's images
    out = capfd.readouterr().out
    (run,) = (tmp_path / "runs").glob("demo-*")
    assert (run / "threshold.json").is_file()
    assert f"run          {run}" in out
    assert "pixels" in out.rpartition("on held-out people")[2]
    assert (tmp_path / "demo" / "people" / "eval" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("lfw/lfw-deepfunneled/A", "lfw"),
        ("lfw/A", "lfw"),
        ("x/lfw_funneled/A", "lfw"),
        ("people/A", "folder"),
    ],
)
def test_lfw_is_known_as_it_is_unpacked(tmp_path, place, expected):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place.split("/")[0] / "pairs.txt").touch()
    assert demo.layout(str(tmp_path / place.split("/")[0])) == expected


@needs_real
def test_the_real_layouts_are_known():
    found = {name: demo.layout(str(REAL / name)) for name in ("lfw", "lfw_train_112", "orl_att")}
    assert found == {"lfw": "lfw", "lfw_train_112": "folder", "orl_att": "folder"}


def test_images_of_lfw_are_packed_as_such(tmp_path, monkeypatch):
    write_folders(tmp_path / "lfw" / "lfw-deepfunneled", identities=3, each=2)
    packed: list[list[str]] = []
    monkeypatch.setattr(demo, "rostro", lambda *words: packed.append([*words]))
    keys = parse([f"data={tmp_path / 'lfw'}", f"out={tmp_path / 'demo'}"], demo.OPTIONS)
    assert demo.pack(keys) == tmp_path / "demo" / "lfw"
    assert packed[0][:3] == ["pack", "source=lfw", f"src={tmp_path / 'lfw'}"]


def test_absent_images_are_refused(tmp_path, capsys):
    assert main(["demo", f"data={tmp_path / 'absent'}", f"out={tmp_path}", f"runs={tmp_path}"]) == 2
    assert "absent" in capsys.readouterr().err
