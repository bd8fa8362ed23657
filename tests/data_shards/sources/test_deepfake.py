"""Real and fake: official parts, clips that are never divided, videos, images that look alike, faces cut."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_shards.sources.deepfake import joined
from data_shards.sources.video_frames import places
from tests.data_shards.sources.test_faces_from import picture
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import labels_by_key, last_error, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo
from tests.support.videos import write_video


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(image))


def write_clips(root: Path, names: list[str], *, frames: int = 3) -> Path:
    for number, name in enumerate(names):
        for at in range(frames):
            write(root / name / f"{at:03d}.jpg", photo(10 * number + at, 24, 24))
    return root


def clips(out: Path) -> dict[str, set[str]]:
    """{part: the clips in it}"""
    return {part: set(shards.identity_names()) for part, shards in packed_sets(out).items()}


def test_official_parts_with_fake_zero_and_real_one(tmp_path):
    for part in ("Train", "Validation", "Test"):
        for number, name in enumerate(("Real", "Fake")):
            for at in range(2):
                write(tmp_path / "src" / part / name / f"{name}_{at}.jpg", photo(at + 7 * number, 24, 24))
    (tmp_path / "src" / "readme.txt").write_text("x")
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out") == 0
    sets = packed_sets(tmp_path / "out")
    assert {part: len(each) for part, each in sets.items()} == {"train": 4, "val": 4, "test": 4}
    for shards in sets.values():
        assert shards.schema.fields["deepfake"].names == ("fake", "real")
        for key, labels in labels_by_key(shards).items():
            assert labels == {"identity": -1, "deepfake": int(key.startswith("Real"))}
    assert rejected(tmp_path / "out") == {"readme.txt": "is in no folder of a known class"}


def test_no_clip_is_divided_and_a_fake_stays_beside_its_sources(tmp_path):
    real = [f"Real/{number:03d}/frames" for number in range(12)]
    fake = [f"Fake/{number:03d}_{number + 6:03d}" for number in range(6)]
    write_clips(tmp_path / "src", real + fake)
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", "holdout=0.4", "seed=1") == 0
    found = clips(tmp_path / "out")
    assert sum(map(len, found.values())) == len(found["train"] | found["eval"]) == 18
    side = {clip: part for part, members in found.items() for clip in members}
    for number in range(6):
        together = [f"fake/{number:03d}_{number + 6:03d}", f"real/{number:03d}", f"real/{number + 6:03d}"]
        assert len({side[clip] for clip in together}) == 1
    for shards in packed_sets(tmp_path / "out").values():
        assert (np.bincount(shards.labels["identity"]) == 3).all()


def test_a_clip_on_both_sides_of_official_parts_is_refused(tmp_path, capsys):
    write_clips(tmp_path / "src", ["Train/Real/a", "Train/Fake/a", "Test/Real/a", "Test/Fake/b"])
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out") == 2
    assert "its group 'real/a' is also in split='test'" in last_error(capsys)
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", "partition=none") == 0
    assert clips(tmp_path / "out")["train"] == {"real/a", "fake/a", "fake/b"}


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(10, 5, [1, 3, 5, 7, 9]), (100, 2, [25, 75]), (3, 5, [0, 1, 2]), (7, 1, [3]), (0, 4, [])],
)
def test_frames_are_evenly_spaced(total, count, expected):
    assert places(total, count) == expected


def test_frames_of_videos_are_one_clip_each(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV, the extra `video`")
    src = tmp_path / "src"
    write_video(src / "real" / "a.mp4", frames=20)
    write_video(src / "fake" / "b.avi", frames=3)
    (src / "fake" / "damaged.mp4").write_bytes((src / "real" / "a.mp4").read_bytes()[:200])
    assert pack_source("deepfake", src, tmp_path / "out", "frames=5", "shard_mb=0.05") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert set(shards.identity_names()) == {"real/a", "fake/b"}
    assert np.bincount(shards.labels["deepfake"]).tolist() == [3, 5]
    reasons = rejected(tmp_path / "out")
    assert reasons["fake/b.avi#3"] == "the video has only 3 frames of frames=5"
    assert reasons["fake/damaged.mp4#0"].startswith("does not decode")
    assert len(reasons) == 2 + 5
    greys = []
    for row in np.flatnonzero(shards.labels["deepfake"] == 1):
        with open(shards.shards[int(shards.shard[row])], "rb") as file:
            file.seek(int(shards.offset[row]))
            image = cv2.imdecode(np.frombuffer(file.read(int(shards.size[row])), np.uint8), 1)
        greys.append(float(image.mean()))
    assert np.abs(np.sort(greys) - [8 * number for number in (2, 6, 10, 14, 18)]).max() < 6


def test_a_video_without_its_reader_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "src" / "real").mkdir(parents=True)
    (tmp_path / "src" / "real" / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out") == 2
    assert "is a video, which PyAV reads: type pip install 'rostro[video]'" in last_error(capsys)


def test_images_that_look_alike_stay_on_one_side(tmp_path):
    pytest.importorskip("imagehash", reason="near=true needs ImageHash")
    for scene in range(12):
        for at in range(4):
            name = "Real" if at % 2 else "Fake"
            image = np.roll(photo(scene, 128, 128, grain=0), at, axis=1)
            write(tmp_path / "src" / name / f"{scene:02d}{at}.jpg", image)
    (tmp_path / "src" / "Real" / "no.jpg").write_bytes(b"x")
    words = ["near=true", "holdout=0.3", "seed=2"]
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", *words) == 0
    sides = {
        part: {key[:2] for key in labels_by_key(shards)}
        for part, shards in packed_sets(tmp_path / "out").items()
    }
    assert set(sides) == {"train", "eval"}
    assert not sides["train"] & sides["eval"]
    assert list(rejected(tmp_path / "out")) == ["Real/no.jpg"]


def test_pairs_are_joined_whatever_their_order():
    pairs = [("d", "e"), ("a", "b"), ("c", "b"), ("f", "f"), ("e", "c")]
    for order in (pairs, pairs[::-1]):
        assert joined(iter(order)) == {name: "f" if name == "f" else "a" for name in "abcdef"}


def test_faces_are_cut_from_images(tmp_path):
    write(tmp_path / "src" / "real" / "1.jpg", picture((0, 200, 160)))
    write(tmp_path / "src" / "fake" / "2.jpg", np.full((90, 90, 3), 99, np.uint8))
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", "faces=true", "margin=0.2") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert len(shards) == 1
    assert shards.width[0] == shards.height[0] < 200
    assert rejected(tmp_path / "out") == {"fake/2.jpg": "shows no face that the detector finds"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frames=0"], "frames=0: type 1 to 10000 frames"),
        (["near_bits=200"], "near_bits=200: type 0 to 128 bits"),
        (["partition=official"], "has no folder Train, Validation or Test; type none"),
        (["margin=3"], "margin=3: type a share"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, capsys, words, message):
    write(tmp_path / "src" / "real" / "1.jpg", photo(1, 20, 20))
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", *words) == 2
    assert message in last_error(capsys)
    (tmp_path / "src" / "real").rename(tmp_path / "src" / "others")
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out") == 2
    assert "has no folders Real and Fake with files" in last_error(capsys)
    write(tmp_path / "src" / "Train" / "Real" / "1.jpg", photo(1, 20, 20))
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", "near=true") == 2
    assert "has official parts, which decide; type partition=none" in last_error(capsys)


@needs_real
def test_real_deepfakes(tmp_path):
    src = REAL / "deepfake" / "Dataset"
    assert pack_source("deepfake", src, tmp_path / "train") == 0
    assert np.bincount(packed_sets(tmp_path / "train")["train"].labels["deepfake"]).tolist() == [80, 80]
    pytest.importorskip("imagehash", reason="near=true needs ImageHash")
    assert pack_source("deepfake", src, tmp_path / "near", "near=true", "partition=none", "holdout=0.25") == 0
    sets = packed_sets(tmp_path / "near")
    assert sum(map(len, sets.values())) == 160
    assert min(np.bincount(shards.labels["deepfake"], minlength=2).min() for shards in sets.values()) > 10


@needs_real
def test_a_real_video_is_read(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV, the extra `video`")
    (tmp_path / "src" / "real").mkdir(parents=True)
    (tmp_path / "src" / "real" / "v.mp4").symlink_to(REAL / "video" / "real-xtpeyyltfi-1.mp4")
    assert pack_source("deepfake", tmp_path / "src", tmp_path / "out", "frames=4") == 0
    assert len(packed_sets(tmp_path / "out")["train"]) == 4
