"""`rostro predict` of videos: evenly spaced frames, named by number; what does not decode is listed."""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_shards.sampling.view import View
from hpc.inference.loose_videos import VideoBlocks
from launch.cli import main
from tests.support.age_task import age_run, faces
from tests.support.small_set import jpeg, photo
from tests.support.videos import write_video

pytest.importorskip("av", reason="videos need PyAV, the extra `video`")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return age_run(folder / "age", faces(folder / "faces"))


def test_frames_are_evenly_spaced_in_blocks_of_one_video(tmp_path):
    write_video(tmp_path / "a.mp4", frames=20)
    write_video(tmp_path / "b.avi", frames=3)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    files = ["a.mp4", "b.avi", "c.mp4"]
    blocks = list(VideoBlocks(tmp_path, files, view=View((24, 24)), block=4, frames=5))
    assert [block.files for block in blocks] == [
        ["a.mp4#2", "a.mp4#6", "a.mp4#10", "a.mp4#14"],
        ["a.mp4#18"],
        ["b.avi#0", "b.avi#1", "b.avi#2"],
        [],
    ]
    greys = np.concatenate([block.images for block in blocks]).mean((1, 2, 3))
    np.testing.assert_allclose(greys, [8 * n for n in (2, 6, 10, 14, 18, 0, 1, 2)], atol=6)
    assert [name for block in blocks for name, _ in block.rejected] == ["c.mp4"]
    assert blocks[0].placed.source.tolist() == [[64, 48]] * 4


def test_a_folder_of_images_and_videos_is_predicted_drawn_and_explained(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "z.jfif").write_bytes(jpeg(photo(1, 90, 70)))
    write_video(tmp_path / "in" / "clips" / "a.mp4", frames=12)
    out = tmp_path / "out"
    words = [str(run), f"in={tmp_path / 'in'}", "frames=3", "threads=1"]
    assert main(["predict", *words, f"out={out}", "draw=true", "explain=true"]) == 0
    with open(out / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = ["z.jfif", "clips/a.mp4#2", "clips/a.mp4#6", "clips/a.mp4#10"]
    assert [row["image"] for row in rows] == names
    assert len({row["age"] for row in rows}) > 1
    for folder in ("drawn", "explained"):
        assert cv2.imread(str(out / folder / "clips" / "a.mp4#6.jpg")) is not None
    assert main(["predict", str(run), f"in={tmp_path / 'in/clips/a.mp4'}", f"out={out}", "frames=1"]) == 0
    assert "1 images by" in capsys.readouterr().out


def test_a_video_without_its_reader_is_refused_before_anything_is_written(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["predict", str(run), f"in={tmp_path / 'a.mp4'}", f"out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "is a video, which PyAV reads: type pip install 'rostro[video]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
