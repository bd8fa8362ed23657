"""`rostro generate` of an autoencoder: reconstructions, attributes, walks and growth; what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data_shards.batch import pixels_of
from data_shards.loading.loader import decode_images
from data_shards.loading.reader import Reader
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source, source_module
from hpc.inference.attribute import open_attribute
from hpc.inference.predictor import Predictor, load_run
from hpc.monitor.projector import png
from launch.audit.faces import LabelledFaces
from launch.cli import main
from tests.support.generating_run import generating_run
from tests.support.small_set import jpeg, photo

NAMES = ("Smiling", "Eyeglasses", "Bald")
SIDE = 16


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Drawn faces with bits: train/ and eval/."""
    folder = tmp_path_factory.mktemp("faces") / "shards"
    options = source_module("procedural").OPTIONS | {"identities": 12, "per_identity": 3, "size": SIDE}
    source: Any = open_source("procedural", "", options=options)
    bits = {"attributes": Field("bits", "i1", (len(NAMES),), names=NAMES)}
    pack(LabelledFaces(source, bits), folder, Request(size=SIDE, holdout=0.3), workers=1)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, faces) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return generating_run(
        folder / "vae", "vae", f"data.train={faces / 'train'}", f"data.eval={faces / 'eval'}"
    )


@pytest.fixture(scope="module")
def model(run) -> Predictor:
    return load_run(run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "inner").mkdir()
    (folder / "a.jpg").write_bytes(jpeg(photo(1, 40, 30)))
    cv2.imwrite(str(folder / "a.png"), photo(2, 20, 50))
    (folder / "inner" / "b.JPEG").write_bytes(jpeg(photo(3, SIDE, SIDE)))
    return folder


def read(path: Path) -> np.ndarray:
    """RGB [h, w, 3] of a PNG."""
    return cv2.imread(str(path))[:, :, ::-1]


def made_of(model: Predictor, images: np.ndarray) -> np.ndarray:
    """What the network makes of uint8 [n, h, w, 3]."""
    found = model.predict(images)["image"]
    return pixels_of(torch.from_numpy(found))


def seen(path: Path) -> np.ndarray:
    """A file as the network sees it: the centre square."""
    return decode_images([path.read_bytes()], SIDE)[0]


def test_a_folder_of_reconstructions_keeps_the_names(run, model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["generate", str(run), f"reconstruct={photos}", f"out={out}"]
    assert main(words) == 0
    assert f"{out}: 3 images of {SIDE} pixels, by vae at 48 (ema)" in capsys.readouterr().out
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert found == ["a.jpg.png", "a.png.png", "inner/b.png"]
    for name, made in (("a.jpg", "a.jpg.png"), ("inner/b.JPEG", "inner/b.png")):
        np.testing.assert_array_equal(read(out / made), made_of(model, seen(photos / name)[None])[0])
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "overwrite=true"]) == 0


def test_one_file_shows_each_original_above_what_is_made_of_it(run, model, photos, tmp_path):
    path = tmp_path / "deep" / "both.png"
    assert main(["generate", str(run), f"reconstruct={photos}", f"out={path}"]) == 0
    sheet = read(path)
    assert sheet.shape == (2 * 2 * SIDE + 3 * 2, 2 * SIDE + 3 * 2, 3)
    image = seen(photos / "a.jpg")
    np.testing.assert_array_equal(sheet[2 : 2 + SIDE, 2 : 2 + SIDE], image)
    np.testing.assert_array_equal(
        sheet[2 + SIDE : 2 + 2 * SIDE, 2 : 2 + SIDE], made_of(model, image[None])[0]
    )
    alone = tmp_path / "one.png"
    assert main(["generate", str(run), f"reconstruct={photos / 'a.jpg'}", f"out={alone}"]) == 0
    assert read(alone).shape == (2 * SIDE + 4, SIDE + 4, 3)


def test_files_that_are_no_images_are_named_and_the_others_made(run, photos, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (tmp_path / "in" / "bad.png").write_text("text")
    assert main(["generate", str(run), f"reconstruct={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: bad.png is not a usable image: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    (tmp_path / "in" / "a.jpg").unlink()
    assert main(["generate", str(run), f"reconstruct={tmp_path / 'in'}", f"out={tmp_path / 'b.png'}"]) == 1
    assert not (tmp_path / "b.png").exists()


def latents_of(model: Predictor, shards: ShardSet, ids: np.ndarray) -> np.ndarray:
    reader = Reader(shards)
    images = decode_images([bytes(blob) for blob in reader.read(ids)], SIDE)
    reader.close()
    return model.predict(images)["latent"].astype(np.float64)


def test_a_row_is_a_held_out_face_with_less_and_more_of_the_attribute(run, model, faces, tmp_path, capsys):
    path = tmp_path / "bald.png"
    words = ["attribute=Bald", "strength=-1..3", "steps=3", "rows=2", f"data={faces}", f"out={path}"]
    assert main(["generate", str(run), *words]) == 0
    train, held = ShardSet.open(faces / "train"), ShardSet.open(faces / "eval")
    column = train.labels["attributes"][:, 2]
    having, lacking = (np.flatnonzero(column == value) for value in (1, 0))
    assert f"Bald by {len(having)} images with and {len(lacking)} without it" in capsys.readouterr().out
    direction = latents_of(model, train, having).mean(0) - latents_of(model, train, lacking).mean(0)
    cells = read(path)[2:].reshape(2, SIDE + 2, -1, 3)[:, :SIDE, 2:].reshape(2, SIDE, 4, SIDE + 2, 3)
    cells = cells[:, :, :, :SIDE].swapaxes(1, 2)  # [row, column, h, w, 3]
    shown = {image.tobytes() for image in blocks(held)}
    for row in cells:
        assert np.ascontiguousarray(row[0]).tobytes() in shown  # the face itself
        latent = torch.from_numpy(model.predict(np.ascontiguousarray(row[0])[None])["latent"])
        for strength, image in zip((-1, 1, 3), row[1:], strict=True):
            with torch.no_grad():
                moved = latent + strength * torch.from_numpy(direction).float()
                wanted = pixels_of(model.nets["VAE"].decoder(moved))[0]
            assert np.abs(image.astype(int) - wanted).max() <= 1
    assert main(["generate", str(run), *words[:-2], f"out={tmp_path / 'own.png'}"]) == 0  # the run's own set
    assert (tmp_path / "own.png").read_bytes() == path.read_bytes()
    seeded = [*words[:-2], "seed=5", f"out={tmp_path / 'other.png'}"]
    assert main(["generate", str(run), *seeded]) == 0
    assert (tmp_path / "other.png").read_bytes() != path.read_bytes()


def blocks(shards: ShardSet) -> np.ndarray:
    reader = Reader(shards)
    images = decode_images([bytes(blob) for blob in reader.read(np.arange(len(shards)))], SIDE)
    reader.close()
    return images


def test_strength_0_is_the_reconstruction_and_a_number_is_both_ways(run, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["attribute=Smiling", "steps=3", "rows=1", f"data={faces / 'train'}"]
    assert main(["generate", str(run), *words, "strength=2"]) == 0
    sheet = read(tmp_path / "Smiling.png")  # the default of out=
    assert sheet.shape == (SIDE + 4, 4 * SIDE + 10, 3)
    assert main(["generate", str(run), *words, "strength=-2..2", "out=b.png"]) == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "Smiling.png").read_bytes()
    face, middle = sheet[2:-2, 2 : 2 + SIDE], sheet[2:-2, 2 + 2 * (SIDE + 2) : 2 + 2 * (SIDE + 2) + SIDE]
    (tmp_path / "face.png").write_bytes(png(np.ascontiguousarray(face)))
    assert main(["generate", str(run), "reconstruct=face.png", "out=made.png"]) == 0
    made = read(tmp_path / "made.png")[2 + SIDE : 2 + 2 * SIDE, 2 : 2 + SIDE]
    assert np.abs(made.astype(int) - middle).max() <= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attribute=Smilling"], "attribute=Smilling: {faces}/train has none: did you mean Smiling?"),
        (["attribute=x"], "known attributes: Bald, Eyeglasses, Smiling"),
        (
            ["attribute=Bald", "strength=up"],
            "strength=up is not a rising range up to 100: type",
        ),
        (["attribute=Bald", "strength=3..-3"], "type strength=-3..3"),
        (["attribute=Bald", "strength=nan"], "type strength=-3..3"),
        (["attribute=Bald", "strength=0"], "type strength=-3..3"),
        (["attribute=Bald", "data=nowhere"], "data=nowhere is not a packed set: give one that `rostro pack`"),
        (["attribute=Bald", "steps=1"], "steps=1 is not 2 to 100"),
        (["attribute=Bald", "level=1"], "level=1: a VAE does not grow: leave it out"),
        (["reconstruct=nowhere", "out=x"], "reconstruct=nowhere does not exist: give an image or a folder\n"),
        (["reconstruct={faces}", "out=x"], "holds no image"),
        (["mix=x.png"], "no styles to mix"),
    ],
)
def test_words_that_do_not_fit_are_refused(run, faces, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(run), *(word.format(faces=faces) for word in words)]) == 2
    assert said.format(faces=faces) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_held_out_set_shows_faces_of_its_own(model, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")  # of something else, in the current folder
    data = replace(model.config.data, eval="", val="")
    other = replace(model, config=replace(model.config, data=data))
    assert open_attribute(other, "Bald", "").faces.folder == faces / "train"


def test_sets_without_the_attribute_are_refused(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = source_module("procedural").OPTIONS | {"identities": 4, "per_identity": 1, "size": SIDE}
    source: Any = open_source("procedural", "", options=options)
    pack(source, tmp_path / "plain", Request(size=SIDE, holdout=0.0), workers=1)
    assert main(["generate", str(run), "attribute=Smiling", "data=plain"]) == 2
    said = capsys.readouterr().err
    assert "data=plain/train has no label of attributes (its labels: " in said
    assert "such as one of source=celeba" in said
    assert not (tmp_path / "Smiling.png").exists()


def test_a_walk_between_latents_is_a_gif_or_a_video(run, tmp_path):
    av = pytest.importorskip("av")
    words = ["stops=2", "frames=6", "seed=3"]
    for ending in ("gif", "mp4"):
        path = tmp_path / f"walk.{ending}"
        assert main(["generate", str(run), *words, f"interpolate={path}"]) == 0
    assert main(["generate", str(run), "n=2", "seed=3", f"out={tmp_path / 'ends'}"]) == 0
    with av.open(str(tmp_path / "walk.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    with Image.open(tmp_path / "walk.gif") as walk:
        assert walk.n_frames == len(frames) == 6
    for number, frame in ((0, 0), (1, 3)):
        wanted = read(tmp_path / "ends" / f"00000{number}.png")
        assert frames[frame].shape == (256, 256, 3)
        assert np.abs(frames[frame][8::16, 8::16].astype(int) - wanted).mean() < 12


def test_growth_is_made_of_what_the_run_saved_and_needs_no_weights(run, tmp_path, capsys):
    folder = tmp_path / "grown"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    for number in range(3):
        path = folder / "samples" / "ab" / f"{48 * number:012}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((6, 6, 3), 60 * number, np.uint8)))
    out = tmp_path / "growth.gif"
    assert main(["generate", str(folder), f"movie={out}", "grids=ab", "rate=5"]) == 0
    assert f"{out}: 3 grids of {folder}" in capsys.readouterr().out
    with Image.open(out) as growth:
        assert (growth.n_frames, growth.info["duration"]) == (3, 200)
