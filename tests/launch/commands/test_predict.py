"""`rostro predict`: loose images of any format, folders, packed sets; CSV, JSON, drawn; refusals."""

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_shards.images.normalize import pixels
from data_shards.images.pixels import square
from data_shards.sampling.view import View
from hpc.inference.loose import LooseBlocks, decode_file, find_images
from launch.cli import main
from tests.support.age_task import age_run, faces
from tests.support.judged import judged_run
from tests.support.sets import pack_set
from tests.support.small_set import jpeg, photo


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return faces(tmp_path_factory.mktemp("set") / "faces")


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards) -> Path:
    return age_run(tmp_path_factory.mktemp("runs") / "age", shards)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two JPEGs, a grey PNG, one that lies on its side by EXIF, and two files that are not images."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "inner").mkdir()
    (folder / "a.jpg").write_bytes(jpeg(photo(1, 90, 70)))
    (folder / "inner" / "b.JPEG").write_bytes(jpeg(photo(2, 64, 64)[..., 0]))
    Image.fromarray(photo(3, 50, 80)[..., 0]).save(folder / "c.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(4, 80, 60)).save(folder / "d.jpg", exif=exif)
    (folder / "e.jpg").write_bytes(jpeg(photo(5, 60, 60))[:400])
    (folder / "f.png").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "predictions.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_is_predicted_and_what_is_not_an_image_is_listed(run, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(run), f"in={images}", f"out={out}", "draw=true", "threads=2"]) == 1
    said = capsys.readouterr()
    assert "2 files are not usable images, such as e.jpg (truncated JPEG" in said.err
    assert said.err.count("\n") == 1
    rows = rows_of(out)
    assert [row["image"] for row in rows] == ["a.jpg", "c.png", "d.jpg", "inner/b.JPEG"]
    assert all(row["gender"] in ("female", "male") for row in rows)
    assert all(0.5 <= float(row["gender_confidence"]) <= 1 for row in rows)
    assert all(
        len(row[name].replace(".", "").strip("0")) <= 8
        for row in rows
        for name in ("age", "gender_confidence")
    )
    listed = (out / "rejected.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == ["image", "e.jpg", "f.png"]
    drawn = cv2.imread(str(out / "drawn" / "inner" / "b.JPEG.jpg"))
    assert drawn.shape[0] > drawn.shape[1] == 256
    assert main(["predict", str(run), f"in={images / 'a.jpg'}", f"out={out}", "format=json"]) == 0
    (record,) = json.loads((out / "predictions.json").read_text())
    assert (record["image"], record["gender"]) == ("a.jpg", rows[0]["gender"])
    assert record["age"] == pytest.approx(float(rows[0]["age"]), rel=1e-5)
    assert not (out / "rejected.csv").exists()


def test_loose_images_and_their_packed_set_have_the_same_predictions(run, shards, tmp_path, capsys):
    from data_shards.loading.reader import Reader
    from data_shards.shard_format.shard_set import ShardSet

    held_out = ShardSet.open(shards / "eval")
    for row in range(len(held_out)):
        path = tmp_path / "loose" / held_out.member(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(Reader(held_out).read([row])[0]))
    for name, place in (("set", shards / "eval"), ("files", tmp_path / "loose")):
        assert main(["predict", str(run), f"in={place}", f"out={tmp_path / name}"]) == 0
    packed, loose = (
        sorted(rows_of(tmp_path / name), key=lambda row: row["image"]) for name in ("set", "files")
    )
    assert [row["image"] for row in packed] == [row["image"] for row in loose]
    assert len(packed) == len(held_out)
    for column in ("age", "gender_confidence"):  # the batches are others: the last digit may be
        np.testing.assert_allclose(
            *([float(row[column]) for row in rows] for rows in (packed, loose)), rtol=1e-5
        )


def test_embeddings_are_columns(tmp_path):
    shards = pack_set(tmp_path / "set", identities=6, each=2, holdout=0.5)
    run = judged_run(tmp_path / "run", shards)
    assert main(["predict", str(run), f"in={shards / 'eval'}", f"out={tmp_path}"]) == 0
    rows = rows_of(tmp_path)
    vectors = np.array([[float(row[f"embedding_{n}"]) for n in range(16)] for row in rows])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_file_has_the_pixels_that_evaluation_sees(images):
    for name in ("a.jpg", "c.png", "d.jpg", "inner/b.JPEG"):
        data = (images / name).read_bytes()
        for size in (16, 32, 100):
            out = np.empty((size, size, 3), np.uint8)
            assert (
                decode_file(images / name, out, View((size, size)), exact=True) == pixels(data).shape[1::-1]
            )
            whole = pixels(data)
            wanted = square(whole if whole.shape[2] == 3 else whole.repeat(3, 2), size)
            np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize(("width", "height"), [(448, 500), (901, 640), (2000, 1500)])
def test_a_large_image_is_reduced_by_the_decoder_to_almost_the_same_pixels(tmp_path, width, height):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo(7, width, height)))
    fast, exact = np.empty((2, 112, 112, 3), np.uint8)
    decode_file(tmp_path / "a.jpg", fast, View((112, 112)))
    decode_file(tmp_path / "a.jpg", exact, View((112, 112)), exact=True)
    off = np.abs(fast.astype(int) - exact)
    assert 0 < off.mean() < 0.7  # of 255
    assert off.max() < 40  # at edges


def test_threads_and_blocks_change_nothing(images):
    folder, files = find_images(images)
    found = []
    for block, threads in ((1, 1), (3, 2), (64, 4)):
        parts = list(LooseBlocks(folder, files, view=View((24, 24)), block=block, threads=threads))
        found.append(
            (
                [name for part in parts for name in part.files],
                np.concatenate([part.images for part in parts]),
                [name for part in parts for name, _ in part.rejected],
            )
        )
    for names, images_, bad in found[1:]:
        assert (names, bad) == (found[0][0], found[0][2])
        np.testing.assert_array_equal(images_, found[0][1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["in={nothing}", "out=o"],
            "does not exist: give an image, a video, a folder or a packed set",
        ),
        (["in={empty}", "out=o"], "holds no image: give a folder with .jpg"),
        (["in={empty}"], "out is missing: add out=..."),
        (["in={empty}", "out={file}"], "is not a folder: give another one"),
        (["in={empty}", "out=o", "format=xml"], "format=xml is not known: use csv or json"),
        (["in={empty}", "out=o", "threads=-1"], "threads=-1 is not 0 to 1_024"),
    ],
)
def test_bad_words_are_one_line(run, tmp_path, words, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    places = {name: tmp_path / name for name in ("nothing", "empty", "file")}
    assert main(["predict", str(run), *(word.format(**places) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "o").exists()


def test_what_was_drawn_below_the_images_is_not_predicted(run, tmp_path):
    (tmp_path / "a.jpg").write_bytes(simplejpeg.encode_jpeg(photo(0, 40, 40)))
    for _ in range(2):
        assert main(["predict", str(run), f"in={tmp_path}", f"out={tmp_path / 'out'}", "draw=true"]) == 0
        assert [row["image"] for row in rows_of(tmp_path / "out")] == ["a.jpg"]


def test_a_pipe_among_the_images_is_listed(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(simplejpeg.encode_jpeg(photo(0, 40, 40)))
    os.mkfifo(folder / "b.jpg")
    assert main(["predict", str(run), f"in={folder}", f"out={tmp_path / 'out'}"]) == 1
    assert "not a regular file" in (tmp_path / "out" / "rejected.csv").read_text()


def test_a_letterbox_shows_all_of_a_file_and_says_where(tmp_path):
    painted = np.zeros((40, 120, 3), np.uint8)
    painted[10:30, 60:90] = 255
    Image.fromarray(painted).save(tmp_path / "wide.png")
    (block,) = LooseBlocks(*find_images(tmp_path), view=View((60, 60), fit="contain"), block=4, threads=1)
    (image,) = block.images
    assert (image[:20] == 128).all()
    assert (image[40:] == 128).all()
    rows, columns = np.nonzero(image[20:40, :, 0] > 127)
    seen = np.array([[columns.min(), rows.min() + 20, columns.max() + 1, rows.max() + 21]], np.float32)
    np.testing.assert_allclose(block.placed.undo_boxes(seen, np.array([0])), [[60, 10, 90, 30]], atol=1)
