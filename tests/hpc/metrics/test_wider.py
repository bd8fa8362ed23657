"""WIDER FACE's protocol: equal to its description as a plain loop; its files; a public row."""

import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from data_shards.files import FileError
from data_shards.ragged import Ragged
from hpc.metrics import wider, wider_files
from hpc.metrics.bootstrap import weights
from tests.support.wider_set import detect, plain_ap, write_truth

DATA = Path(os.environ.get("ROSTRO_DATA", "none")) / "widerface"


def ragged(rows: list[np.ndarray]) -> Ragged:
    return Ragged.of_lists([torch.from_numpy(np.asarray(each, np.float64)) for each in rows])


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> tuple[wider.Faces, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("truth")
    boxes = write_truth(folder)
    return wider_files.read_faces(folder), boxes


def kept_of(faces: wider.Faces, setting: str) -> dict[str, set[int]]:
    starts, kept = faces.boxes.starts, faces.kept[setting]
    return {
        name: set(np.flatnonzero(kept[starts[at] : starts[at + 1]]).tolist())
        for at, name in enumerate(faces.names)
    }


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_description_as_a_loop(truth, seed):
    faces, boxes = truth
    found = detect(boxes, seed=seed)
    matches = wider.match(faces, ragged([found[name] for name in faces.names]))
    for setting in wider.SETTINGS:
        expected = plain_ap(boxes, found, kept_of(faces, setting))
        result = wider.judge(matches, faces.kept[setting])
        assert result.ap == pytest.approx(expected, abs=1e-12)
        assert 0.1 < result.ap < 0.999
        once = wider.resampled(
            faces, matches, faces.kept[setting], np.ones((len(faces.names), 1), np.float32)
        )
        assert once == pytest.approx([expected], abs=1e-12)


def test_a_resample_is_the_set_with_images_several_times(truth):
    faces, boxes = truth
    found = [detect(boxes)[name] for name in faces.names]
    matches = wider.match(faces, ragged(found))
    weight = weights(np.arange(len(found)), slice(0, 3))
    for setting in wider.SETTINGS:
        drawn = wider.resampled(faces, matches, faces.kept[setting], weight)
        for column, value in zip(weight.T, drawn, strict=True):
            images = np.repeat(np.arange(len(found)), column.astype(int))
            again = faces.take(images)
            part = wider.match(again, ragged([found[at] for at in images]))
            # the range of scores is that of the whole set
            part = wider.Matches(
                np.concatenate([matches.scores[matches.images == at] for at in images]),
                part.faces,
                part.images,
            )
            assert value == pytest.approx(wider.judge(part, again.kept[setting]).ap, abs=1e-12)


@pytest.mark.parametrize("equal", [True, False])
def test_perfect_detections_are_perfect(truth, equal):
    faces, _ = truth
    rows = faces.boxes.rows
    scores = torch.ones(len(rows), 1) if equal else torch.linspace(0, 1, len(rows))[:, None]
    found = Ragged(torch.cat([rows, scores.double()], 1), faces.boxes.starts)
    matches = wider.match(faces, found)
    for setting in wider.SETTINGS:
        assert wider.judge(matches, faces.kept[setting]).ap > 0.97  # of twins one is never found
    alone = faces.take(np.array([0, 1]))
    matches = wider.match(alone, found.take(np.array([0, 1])))
    assert wider.judge(matches, alone.kept["hard"]).ap > 0.999


def test_no_detections_and_no_faces(truth):
    faces, _ = truth
    nothing = ragged([np.zeros((0, 5))] * len(faces.names))
    assert wider.judge(wider.match(faces, nothing), faces.kept["hard"]).ap == 0
    empty = faces.take(np.array([3]))
    assert not len(empty.boxes.rows)
    matches = wider.match(empty, ragged([[[1, 1, 5, 5, 0.5]]]))
    assert len(matches.scores) == 0  # an image without faces is not judged
    assert wider.judge(matches, empty.kept["hard"]).ap == 0


def test_text_files_come_back(truth, tmp_path):
    faces, boxes = truth
    found = detect(boxes)
    for name, rows in found.items():
        wider_files.write_text(tmp_path, name, wider_files.text_of(name, rows))
    name = faces.names[0]
    lines = (tmp_path / f"{name}.txt").read_text().splitlines()
    assert lines[:2] == [name.split("/")[1], str(len(found[name]))]
    again, there = wider_files.read_detections(tmp_path, faces.names)
    assert there.all()
    for row, each in enumerate(faces.names):
        np.testing.assert_array_equal(again.of(row), found[each])
    (tmp_path / "0--Parade" / "other.txt").write_text("other\n0\n")
    assert wider_files.others(tmp_path, faces.names) == ["0--Parade/other.txt"]
    (tmp_path / f"{name}.txt").rename(tmp_path / "0--Parade" / "moved.txt")
    (tmp_path / "4--Dancing" / "moved.txt").write_text("another\n0\n")
    assert not wider_files.read_detections(tmp_path, faces.names)[1][0]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "0--Parade" / "moved.txt").rename(tmp_path / "elsewhere" / f"{name.split('/')[1]}.txt")
    moved, there = wider_files.read_detections(tmp_path, faces.names)
    assert there.all()
    np.testing.assert_array_equal(moved.of(0), found[name])
    score = np.float32(0.123456789)
    text = wider_files.text_of("a/b", np.array([[0.1, 2, 3.5, 4, score]]))
    assert np.float32(wider_files.parse(text, where="x")[0, 4]) == score


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 2 is ``, not how many"),
        ("name\nmany\n", "line 2 is `many`"),
        ("name\n-1\n", "line 2 is `-1`"),
        ("name\n2\n1 2 3 4 0.5\n", "line 2 says 2 detections, 1 follow"),
        ("name\n1\n1 2 3 4 0.5\n1 2 3 4 0.4\n", "line 2 says 1 detections, 2 follow"),
        ("name\n2\n1 2 3 4 0.5\n1 2 3 4\n", "line 4 is `1 2 3 4`"),
        ("name\n1\n1 2 3 x 0.5\n", "line 3 is `1 2 3 x 0.5`"),
        ("name\n2\n1 2 3 4 0.5\n1 2 3 4 nan\n", "line 4 is `1 2 3 4 nan`"),
    ],
)
def test_a_damaged_text_file_is_named_with_its_line(text, said):
    with pytest.raises(FileError, match=r"^x\.txt: ") as caught:
        wider_files.parse(text, where="x.txt")
    assert said in str(caught.value)


def test_an_image_without_faces_may_have_the_dummy_line():
    assert wider_files.parse("name\n0\n", where="x").shape == (0, 5)
    assert wider_files.parse("name\n0\n0 0 0 0 0.0\n", where="x").shape == (0, 5)


def test_damaged_truth_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no wider_face_val\.mat"):
        wider_files.read_faces(tmp_path)
    folder = tmp_path / "eval_tools" / "ground_truth"
    write_truth(folder)
    assert len(wider_files.read_faces(tmp_path).names) == 16  # found below what was typed
    good = (folder / "wider_easy_val.mat").read_bytes()
    for bad in (b"", b"MATLAB 5.0", good[: len(good) // 2], good[:200] + bytes(300) + good[500:]):
        (folder / "wider_easy_val.mat").write_bytes(bad)
        with pytest.raises(FileError, match=r"wider_easy_val\.mat is not as the official one"):
            wider_files.read_faces(tmp_path)
    write_truth(tmp_path / "other", seed=3)  # other counts of faces
    (folder / "wider_easy_val.mat").write_bytes((tmp_path / "other" / "wider_hard_val.mat").read_bytes())
    with pytest.raises(FileError, match="keeps a face that its image does not have"):
        wider_files.read_faces(tmp_path)
    (folder / "wider_easy_val.mat").unlink()
    with pytest.raises(FileError, match="does not exist: unpack the official eval_tools"):
        wider_files.read_faces(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real samples: ROSTRO_DATA")
def test_the_public_detections_have_their_published_figures(tmp_path):
    with tarfile.open(next((DATA / "predictions").glob("*.tar.xz"))) as tar:
        tar.extractall(tmp_path, filter="data")
    began = time.process_time()
    faces = wider_files.read_faces(DATA / "eval_tools")
    found, there = wider_files.read_detections(tmp_path / "widerface_txt", faces.names)
    assert there.all()
    matches = wider.match(faces, found)
    values = [wider.judge(matches, faces.kept[setting]).ap for setting in wider.SETTINGS]
    assert time.process_time() - began < 60
    assert values == pytest.approx([0.9070, 0.8816, 0.7383], abs=5e-4)
    perfect = torch.cat([faces.boxes.rows, torch.ones(len(faces.boxes.rows), 1, dtype=torch.float64)], 1)
    matches = wider.match(faces, Ragged(perfect, faces.boxes.starts))
    assert min(wider.judge(matches, kept).ap for kept in faces.kept.values()) > 0.999
