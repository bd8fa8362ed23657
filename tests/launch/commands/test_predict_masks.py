"""`rostro predict` of masks: PNG files of the images' sizes, overlays, cut-outs, and videos of the same."""

import csv
import json

import cv2
import numpy as np
import pytest

from data_shards.images.masks import read_mask
from data_shards.sources.video_frames import length_and_rate
from launch.cli import main
from tests.support.generating_run import generating_run
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return generating_run(tmp_path_factory.mktemp("runs") / "unet", "unet_persons")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "a.png"), rng.integers(0, 256, (60, 90, 3), np.uint8))
    (folder / "below").mkdir()
    cv2.imwrite(str(folder / "below" / "b.jpg"), rng.integers(0, 256, (50, 40, 3), np.uint8))
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_images_give_masks_overlays_and_cutouts(run, photos, tmp_path, capsys):
    words = [f"in={photos}", f"out={tmp_path}", "draw=true", "cutouts=true", "format=json"]
    assert main(["predict", str(run), *words]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    with (tmp_path / "rejected.csv").open() as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == ["broken.jpg"]
    records = json.loads((tmp_path / "predictions.json").read_text())
    assert [record["image"] for record in records] == ["a.png", "below/b.jpg"]
    for record, shape in zip(records, ((60, 90), (50, 40)), strict=True):
        name = record["image"]
        mask = read_mask((tmp_path / "masks" / f"{name}.png").read_bytes())
        assert mask.shape == shape
        assert set(np.unique(mask)) <= {0, 1}
        assert record["person_share"] == pytest.approx((mask == 1).mean(), abs=1e-6)
        assert cv2.imread(str(tmp_path / "drawn" / f"{name}.jpg")).shape == (*shape, 3)
        cut = cv2.imread(str(tmp_path / "cutouts" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(photos / name))
        np.testing.assert_array_equal(cut[..., 3], 255 * mask)
        np.testing.assert_array_equal(cut[mask == 1][:, :3], picture[mask == 1])


def test_a_video_gives_videos_of_its_size_and_rate(run, tmp_path, capsys):
    pytest.importorskip("av")
    source = write_video(tmp_path / "clip.mp4", frames=11)
    out = tmp_path / "out"
    words = [f"in={source}", f"out={out}", "draw=true", "cutouts=true", "background=0000ff"]
    assert main(["predict", str(run), *words]) == 0
    for name in ("masks", "drawn", "cutouts"):
        assert length_and_rate(str(out / name / "clip.mp4")) == (11, 10)
    with (out / "predictions.csv").open() as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [f"clip.mp4#{at}" for at in range(11)]
    capsys.readouterr()
    assert main(["predict", str(run), *words]) == 2
    assert "clip.mp4 is there already: give another out=" in capsys.readouterr().err


def test_words_of_other_tasks_are_refused(run, photos, tmp_path, capsys):
    for word in ("crops=true", "explain=true"):
        assert main(["predict", str(run), f"in={photos}", f"out={tmp_path / 'out'}", word]) == 2
        assert f"{word.partition('=')[0]}= does not belong to task unet_persons" in capsys.readouterr().err
    words = [f"in={photos}", f"out={tmp_path / 'out'}", "cutouts=true", "background=green"]
    assert main(["predict", str(run), *words]) == 2
    assert "background=green is not a colour: type RRGGBB" in capsys.readouterr().err
    assert main(["predict", str(run), *words[:2], "background=0000ff"]) == 2
    assert "type cutouts=true too, or leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
