"""`rostro predict` and `rostro evaluate` of a detector, and `rostro score wider`: files, videos, refusals."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_shards.images.normalize import pixels
from hpc.inference.detector import LOOKS, RunDetector
from hpc.inference.predictor import load_run
from hpc.metrics import wider
from launch.cli import main
from tests.support.found_objects import blobs_run, pack_painted
from tests.support.painted import as_jpeg

YELLOW = (220, 180, 60)
BOXES = {  # x0, y0, x1, y1 of images of other sizes and aspects
    "wide.png": ((640, 200), [(40, 30, 140, 130), (500, 60, 620, 170)]),
    "0--Parade/tall.jpg": ((150, 410), [(20, 300, 110, 400)]),
    "small.png": ((60, 70), []),
}


def picture(size: tuple[int, int], boxes: list[tuple]) -> np.ndarray:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = YELLOW
    return image


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return pack_painted(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="module")
def run(painted, tmp_path_factory) -> Path:
    return blobs_run(tmp_path_factory.mktemp("runs") / "blobs", painted[0].folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "0--Parade").mkdir()
    for name, (size, boxes) in BOXES.items():
        Image.fromarray(picture(size, boxes)).save(folder / name)
    return folder


def refused(words: list[str], capsys) -> str:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("tta", list(LOOKS))
def test_a_letterbox_is_undone_within_half_a_pixel_also_by_every_look(run, tta):
    detector = RunDetector(load_run(run), tta)
    found = detector.find([picture(size, boxes) for size, boxes in BOXES.values()])
    for rows, ((width, height), boxes) in zip(found, BOXES.values(), strict=True):
        scale = max(width, height) / 250  # pixels of the file by pixel that the network sees
        rows = rows[np.argsort(rows[:, 0])]
        assert len(rows) == len(boxes)  # looks are merged
        if len(boxes):
            assert np.abs(rows[:, :4] - boxes).max() <= 0.5 * max(1, 2 * scale)


def test_boxes_that_the_network_sees_exactly_come_back_within_half_a_pixel(run):
    """At the network's own size every border is one of its pixels."""
    boxes = [(10, 22, 61, 90), (101, 33, 240, 148)]
    found = RunDetector(load_run(run)).find([picture((250, 160), boxes)])[0]
    assert np.abs(found[np.argsort(found[:, 0]), :4] - boxes).max() <= 0.5


def test_records_labels_crops_and_drawn_images(run, images, tmp_path, capsys):
    words = ["predict", str(run), str(images), f"out={tmp_path}", "format=json", "draw=true", "crops=true"]
    assert main([*words, "layout=yolo", "threads=1", "score=0.5"]) == 0
    said = capsys.readouterr().out
    assert "3 images by blobs at 160" in said
    assert "objects of a score of 0.5 or more" in said
    records = {each["image"]: each for each in json.loads((tmp_path / "predictions.json").read_text())}
    assert {name: each["objects"] for name, each in records.items()} == {
        name: len(boxes) for name, (_, boxes) in BOXES.items()
    }
    assert records["wide.png"]["found"][0]["class"] == "face"
    label = (tmp_path / "labels" / "0--Parade" / "tall.txt").read_text().split()
    assert [float(part) for part in label[:5]] == pytest.approx(
        [0, 65 / 150, 350 / 410, 0.6, 100 / 410], abs=0.02
    )
    assert (tmp_path / "labels" / "small.txt").read_text() == ""
    drawn = pixels((tmp_path / "drawn" / "wide.png.jpg").read_bytes())
    assert drawn.shape == (200, 640, 3)  # the file's own size
    bare = picture(*BOXES["wide.png"])
    assert np.abs(drawn.astype(int) - bare)[100, 36:44].max() > 60  # the left border of the first box
    assert np.abs(drawn.astype(int) - bare)[100, 200:400].max() < 30
    crops = sorted(path.name for path in (tmp_path / "crops" / "face").rglob("*.jpg"))
    assert crops == ["tall-0.jpg", "wide-0.jpg", "wide-1.jpg"]
    crop = pixels((tmp_path / "crops" / "face" / "0--Parade" / "tall-0.jpg").read_bytes())
    assert crop.shape[0] == pytest.approx(
        110 + 18, abs=12
    )  # a fifth more on each side, as far as the image goes
    assert main([*words[:3], f"out={tmp_path}", "threads=1"]) == 0
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [(row["image"], int(row["objects"])) for row in rows] == [
        (name, len(BOXES[name][1])) for name in sorted(BOXES)
    ]
    assert json.loads(rows[0]["found"])[0]["box"] == pytest.approx([20, 300, 110, 400], abs=2)


def test_a_set_is_predicted_like_its_files_and_scored_as_it_is_evaluated(run, painted, tmp_path, capsys):
    shards, truth = painted
    words = [f"ground_truth={truth}", "bootstrap=0"]
    assert main(["predict", str(run), str(shards.folder), f"out={tmp_path / 'found'}", "layout=wider"]) == 0
    assert main(["score", "wider", f"predictions={tmp_path / 'found'}", *words]) == 0
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored.keys() == {"easy", "medium", "hard", "images", "of", "detections"}
    assert 0.3 < scored["hard"] < 1
    assert (tmp_path / "found.report" / "report.html").is_file()
    assert main(["evaluate", str(run), *words, f"written={tmp_path / 'written'}"]) == 0
    report = json.loads((run / "evaluations" / "painted-train" / "report.json").read_text())
    figures = report["evaluators"]["wider"]["scalars"]
    assert {name: round(figures[name], 6) for name in wider.SETTINGS} == {
        name: scored[name] for name in wider.SETTINGS
    }
    capsys.readouterr()
    assert main(["score", "wider", f"predictions={tmp_path / 'written'}", *words]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == scored  # all digits
    assert {"objects-worst.png", "wider-precision.png"} <= set(report["pictures_drawn"])
    assert report["evaluators"]["objects"]["chosen"]["score"] > 0
    (tmp_path / "written" / "0--Parade" / "0_Parade_1.txt").unlink()
    words = ["score", "wider", f"predictions={tmp_path / 'written'}", *words]
    assert "has nothing of 1 of the 16 official images, first 0--Parade/0_Parade_1" in refused(words, capsys)
    assert main([*words, "missing=skip"]) == 0
    said = capsys.readouterr().out
    assert "1 of the 16 official images are not there" in said
    assert json.loads(said.splitlines()[-1])["images"] == 15


def test_a_video_comes_back_with_boxes_and_one_that_ends_early_is_listed(run, tmp_path, capsys):
    av = pytest.importorskip("av", reason="videos need PyAV, the extra `video`")
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0)
    with av.open(str(folder / "clip.avi"), "w") as video:
        stream = video.add_stream("mpeg4", rate=10, options={"qmin": "2", "qmax": "3"})
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for number in range(21):
            image = picture((96, 80), [(10 + number, 20, 50 + number, 60)])
            image[70:] = noise.integers(0, 2, (10, 96, 1)) * 255  # so that the file is longer than its head
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        video.mux(stream.encode())
    data = (folder / "clip.avi").read_bytes()
    (folder / "cut.avi").write_bytes(data[: int(len(data) * 0.7)])
    words = ["predict", str(run), str(folder), f"out={tmp_path / 'out'}", "draw=true", "format=json"]
    assert main([*words, "layout=yolo"]) == 1
    rejected = dict(csv.reader((tmp_path / "out" / "rejected.csv").open()))
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    names = [each["image"] for each in records]
    assert names[:21] == [f"clip.avi#{number}" for number in range(21)]
    assert [each["found"][0]["box"][0] for each in records[:21]] == pytest.approx(list(range(10, 31)), abs=2)
    assert (tmp_path / "out" / "labels" / "clip.avi-20.txt").read_text()
    with av.open(str(tmp_path / "out" / "drawn" / "clip.avi.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 10
    assert [frame.shape for frame in frames] == [(80, 96, 3)] * 21
    assert np.abs(frames[5].astype(int) - picture((96, 80), [(15, 20, 55, 60)]))[40, 13:17].max() > 60
    cut = [name for name in names if name.startswith("cut.avi")]
    assert 0 < len(cut) < 21
    with av.open(str(tmp_path / "out" / "drawn" / "cut.avi.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(cut)
    assert rejected.keys() == {"image", "cut.avi"}
    assert rejected["cut.avi"].startswith(("does not decode", f"ends after {len(cut)} of 21 frames"))
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_what_does_not_decode_is_listed_and_words_that_do_nothing_are_refused(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.jpg").write_bytes(as_jpeg(picture((40, 40), []))[:300])
    (tmp_path / "in" / "good.jpg").write_bytes(as_jpeg(picture((40, 40), [(5, 5, 30, 30)])))
    (tmp_path / "in" / "no.mp4").write_bytes(b"no video")
    words = ["predict", str(run), f"in={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]
    assert main(words) == 1
    assert "2 files are not usable images, such as bad.jpg" in capsys.readouterr().err
    rejected = dict(csv.reader((tmp_path / "out" / "rejected.csv").open()))
    assert rejected.keys() == {"image", "bad.jpg", "no.mp4"}
    assert "explain= does not belong to task blobs: leave it out" in refused([*words, "explain=true"], capsys)
    assert "tta=twice is not known" in refused([*words, "tta=twice"], capsys)
    assert "layout=coco is not known" in refused([*words, "layout=coco"], capsys)
    missing = [*words[:2], f"in={tmp_path / 'none'}", words[3]]
    assert "does not exist: give" in refused(missing, capsys)
    camera = [*words[:2], "in=camera:97", words[3]]
    assert "in=camera:97: there is no such camera" in refused(camera, capsys)
    assert "in=camera:x: x is not the number" in refused([*words[:2], "in=camera:x", words[3]], capsys)
    assert "frames= counts those of a camera" in refused([*words, "frames=3"], capsys)


def test_two_images_of_one_name_have_label_files_and_crops_of_their_own(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name, boxes in (("a.jpg", [(5, 5, 30, 30)]), ("a.png", []), ("b#1.jpg", [(5, 5, 30, 30)])):
        Image.fromarray(picture((40, 40), boxes)).save(tmp_path / "in" / name)
    words = [f"in={tmp_path / 'in'}", f"out={tmp_path}", "layout=yolo", "crops=true", "threads=1"]
    assert main(["predict", str(run), *words]) == 0
    found = {path.name: path.read_text().count("\n") for path in (tmp_path / "labels").iterdir()}
    assert found == {"a.txt": 1, "a.png.txt": 0, "b#1.txt": 1}
    assert sorted(path.name for path in (tmp_path / "crops" / "face").iterdir()) == ["a-0.jpg", "b#1-0.jpg"]


def test_score_wider_says_what_is_missing(tmp_path, capsys):
    words = ["score", "wider", f"predictions={tmp_path}"]
    assert "ground_truth is missing: add ground_truth=DIR" in refused(words, capsys)
    assert "holds no wider_face_val.mat" in refused([*words, f"ground_truth={tmp_path}"], capsys)
    assert "truth=x does not belong to kind wider" in refused([*words, "truth=x"], capsys)
    assert "truth is missing" in refused(["score", "values", "predictions=x.csv"], capsys)
    assert "does not belong to kind values" in refused(
        ["score", "values", "predictions=x.csv", "ground_truth=y"], capsys
    )


def test_a_camera_gives_frames_until_there_are_enough(run, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="videos need PyAV, the extra `video`")

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 1

        def isOpened(self) -> bool:
            return True

        def get(self, key: int) -> float:
            return 0.0

        def read(self) -> tuple[bool, np.ndarray]:
            return True, picture((96, 80), [(10, 20, 50, 60)])[..., ::-1]

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Device)
    words = ["predict", str(run), "in=camera:1", f"out={tmp_path}", "frames=3", "draw=true", "format=json"]
    assert main(words) == 0
    records = json.loads((tmp_path / "predictions.json").read_text())
    assert [(each["image"], each["objects"]) for each in records] == [
        (f"camera.mp4#{n}", 1) for n in range(3)
    ]
    assert (tmp_path / "drawn" / "camera.mp4").stat().st_size > 500
