"""`rostro generate translate=`: sizes and names kept, turned upright, videos; what it refuses; `predict`."""

import csv
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data_shards.images.pixels import Rejected
from data_shards.images.placed import resize_exactly
from hpc.generator import Translator
from hpc.inference.predictor import load_run
from hpc.inference.translate import MOST, STILL, Worker, encoded
from hpc.tasks.cyclegan import Way
from launch.cli import main
from models import cyclegan
from tests.support.generating_run import generating_run
from tests.support.sets import pack_faces
from tests.support.small_set import jpeg, photo
from tests.support.videos import write_video


class Negative(Translator):
    """Turns light into dark, and remembers the sizes that it has seen."""

    multiple = 16

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape[2:]))
        return -images


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return generating_run(tmp_path_factory.mktemp("runs") / "pix", "pix2pix", "task.width=4")


@pytest.fixture
def negative(monkeypatch) -> Negative:
    """What translates in the place of the run's network."""
    made = Negative()
    monkeypatch.setattr("hpc.tasks.pix2pix.Pix2Pix.translator", lambda task, nets, direction="": made)
    return made


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[:, :, ::-1]


def translate(run: Path, place: Path, out: Path, *words: str) -> int:
    return main(["generate", str(run), f"translate={place}", f"out={out}", *words])


def test_a_network_sees_multiples_and_the_image_keeps_its_size():
    worker = Worker(Negative(), 32)
    sizes = {
        (32, 32): (32, 32),
        (100, 60): (48, 32),
        (60, 100): (32, 48),
        (7, 200): (32, 912),
        (5, 5): (32, 32),
    }
    for size, wanted in sizes.items():
        assert worker.working_size(*size) == wanted
        image = np.ascontiguousarray(np.broadcast_to(np.uint8([10, 100, 240]), (2, *size, 3)))
        np.testing.assert_array_equal(worker(image), 255 - image)
        assert worker.translator.seen[-1] == wanted
    assert Worker(Negative(), 4).working_size(50, 90) == (16, 16)  # a side is one multiple at least
    with pytest.raises(Rejected, match=r"40000 x 2 pixels would be .* too many: give a smaller size="):
        Worker(Negative(), 64).working_size(2, 40_000)
    assert MOST < 64 * 64 * 20_000


def test_many_frames_are_looked_at_in_parts(monkeypatch):
    seen: list[int] = []

    class Counted(Negative):
        def forward(self, images):
            seen.append(len(images))
            return -images

    images = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), np.uint8)
    monkeypatch.setattr("hpc.inference.translate.MOST", 3 * 32 * 48 + 1)
    np.testing.assert_array_equal(Worker(Counted(), 32)(images), 255 - images)
    assert seen == [3, 3, 2]


@pytest.mark.parametrize("shape", [(20, 20), (20, 90)])
def test_the_smallest_size_is_what_the_network_takes(shape):
    nets = {"G": cyclegan.Networks({"ab": cyclegan.Generator(1, width=4)})}
    worker = Worker(Way(nets["G"], "ab").eval(), 4)
    assert worker.working_size(*shape)[0] == 16
    image = np.ascontiguousarray(photo(1, *shape))[None]
    assert worker(image).shape == image.shape


def test_a_folder_keeps_names_and_sizes(run, negative, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    plain = np.full((50, 90, 3), (200, 60, 20), np.uint8)
    for name in ("a.jpg", "deep/b.png", "c.webp", "d.bmp", "e.tiff"):
        Image.fromarray(plain).save(source / name, quality=95)
    Image.fromarray(plain[..., 0]).save(source / "grey.gif")
    turned = Image.fromarray(plain).getexif()
    turned[0x0112] = 6
    Image.fromarray(plain).save(source / "f.jpeg", exif=turned, quality=95)
    (source / "broken.jpg").write_bytes(b"no image")
    (source / "note.txt").write_text("no image either")
    assert translate(run, source, out) == 1
    said = capsys.readouterr()
    assert f"{out}: 7 images and 0 videos by pix at 48 (ema)" in said.out
    assert said.err.count("\n") == 1
    assert "error: broken.jpg is left out: " in said.err
    found = {str(path.relative_to(out)): read(path) for path in out.rglob("*.*")}
    names = ("a.jpg", "deep/b.png", "c.webp", "d.bmp", "e.tiff", "f.jpeg", "grey.png")
    assert found.keys() == set(names)
    for name, image in found.items():
        assert image.shape == ((90, 50, 3) if name == "f.jpeg" else (50, 90, 3)), name
        wanted = (255 - plain[0, 0, :1]).repeat(3) if name == "grey.png" else 255 - plain[0, 0]
        assert np.abs(image.astype(int) - wanted).max() <= 3, name
    assert set(negative.seen) == {(32, 64), (64, 32)}


def test_a_translation_is_what_the_network_says(run, tmp_path):
    image = photo(3, 32, 32)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert translate(run, tmp_path / "a.png", tmp_path / "new" / "b.png") == 0
    model = load_run(run)
    wanted = model.predict(image[None])["image"][0].transpose(1, 2, 0) * 127.5 + 127.5
    assert np.abs(read(tmp_path / "new" / "b.png") - wanted).max() <= 0.51
    assert translate(run, tmp_path / "a.png", tmp_path / "large.png", "size=64") == 0
    tensor = torch.from_numpy(
        resize_exactly(image, (64, 64)).transpose(2, 0, 1)[None] / np.float32(127.5) - 1
    )
    with torch.no_grad():
        large = model.task.translator(model.nets)(tensor)[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    wanted = resize_exactly(large.round().clip(0, 255).astype(np.uint8), (32, 32))
    assert np.abs(read(tmp_path / "large.png").astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("suffix", STILL)
def test_every_ending_is_that_of_its_format(suffix, tmp_path):
    image = np.ascontiguousarray(np.broadcast_to(np.uint8([250, 120, 10]), (9, 7, 3)))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(image, suffix))
    with Image.open(path) as opened:
        assert Image.registered_extensions()[suffix] in (opened.format, "JPEG")
        np.testing.assert_allclose(np.asarray(opened.convert("RGB"), int), image, atol=3)


def frames_of(path: Path) -> tuple[list[np.ndarray], Fraction]:
    import av

    with av.open(str(path)) as video:
        rate = video.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)], rate


def test_a_video_keeps_its_size_length_and_rate(run, negative, tmp_path, capsys):
    pytest.importorskip("av", reason="videos need PyAV, the extra `video`")
    clip = write_video(tmp_path / "in" / "clip.mp4", frames=19)
    write_video(tmp_path / "in" / "old.avi", frames=3)
    (tmp_path / "in" / "broken.mp4").write_bytes(clip.read_bytes()[:900])
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(photo(1, 60, 40)))
    assert translate(run, tmp_path / "in", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "1 images and 2 videos" in said.out
    assert "error: broken.mp4 is left out: " in said.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.jpg", "clip.mp4", "old.mp4"}
    frames, rate = frames_of(tmp_path / "out" / "clip.mp4")
    assert (len(frames), rate, frames[0].shape) == (19, 10, (48, 64, 3))
    for number, frame in enumerate(frames):
        assert abs(frame.mean() - (255 - 8 * number)) < 6
    assert translate(run, clip, tmp_path / "one.mkv") == 0
    assert len(frames_of(tmp_path / "one.mkv")[0]) == 19


def test_a_video_of_odd_sides_keeps_them(run, negative, tmp_path):
    av = pytest.importorskip("av", reason="videos need PyAV, the extra `video`")
    with av.open(str(tmp_path / "odd.mkv"), "w") as video:
        stream = video.add_stream("ffv1", rate=Fraction(30_000, 1001))
        stream.width, stream.height, stream.pix_fmt = 37, 21, "bgr0"
        for number in range(4):
            image = np.full((21, 37, 3), 40 * number, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        video.mux(stream.encode())
    assert translate(run, tmp_path / "odd.mkv", tmp_path / "made") == 0
    frames, rate = frames_of(tmp_path / "made" / "odd.mkv")
    assert [frame.shape for frame in frames] == [(21, 37, 3)] * 4
    assert abs(float(rate) - 30_000 / 1001) < 0.05
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx([255, 215, 175, 135], abs=3)


def test_what_is_there_is_not_written_over(run, negative, tmp_path, capsys):
    picture, other = tmp_path / "in" / "a.png", tmp_path / "b.png"
    picture.parent.mkdir()
    Image.fromarray(photo(1, 20, 30)).save(picture)
    other.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")
    before = picture.read_bytes()
    refused = {
        (picture, other): "b.png exists already: give another place, or add overwrite=true",
        (picture, tmp_path / "out"): "a.png exists already",
        (picture, picture): "is the original itself: give another place",
        (picture, picture.parent): "is the original itself",
        (picture.parent, tmp_path / "out"): "holds files already: give another folder, or add overwrite=true",
        (picture.parent, picture.parent): "is the folder of the originals: give another one",
        (picture.parent, other): "a folder becomes a folder: type out=FOLDER",
        (picture, tmp_path / "c.mp4"): "a.png does not become a file of that kind: use one of .jpg",
        (tmp_path / "none", tmp_path / "c"): "none does not exist: give an image, a video or a folder\n",
    }
    for (place, out), said in refused.items():
        assert translate(run, place, out) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert translate(run, picture, picture, "overwrite=true") == 2
    assert (picture.read_bytes(), other.read_text()) == (before, "mine")
    assert negative.seen == []
    assert translate(run, picture, other, "overwrite=true") == 0
    assert read(other).shape == (30, 20, 3)


def test_two_files_that_become_one_are_refused(run, tmp_path, capsys):
    for name in ("a.gif", "a.png"):
        Image.fromarray(photo(1, 20, 30)).save(tmp_path / name)
    assert translate(run, tmp_path, tmp_path / "out") == 2
    assert "a.gif and a.png would both become" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["direction=ab"], "direction=ab: a run of pix2pix translates one way"),
        (["mix=m.png"], "mix= and translate= are made of different things: give one of them"),
        (["level=1"], "level= does nothing beside translate=: leave it out"),
        (["size=-1"], "size=-1 is not 0 or more"),
    ],
)
def test_words_that_do_not_fit_are_refused(run, words, said, tmp_path, capsys):
    Image.fromarray(photo(1, 20, 30)).save(tmp_path / "a.png")
    assert translate(run, tmp_path / "a.png", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_words_and_runs_are_refused(run, tmp_path, capsys):
    Image.fromarray(photo(1, 20, 30)).save(tmp_path / "a.png")
    assert main(["generate", str(run), "size=64"]) == 2
    assert "size= belongs to translate=: add translate=FILE" in capsys.readouterr().err
    assert main(["generate", str(run), f"translate={tmp_path / 'a.png'}"]) == 2
    assert "out is missing: translate= needs it" in capsys.readouterr().err
    dreams = generating_run(tmp_path / "dreams", "dcgan")
    assert translate(dreams, tmp_path / "a.png", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "task dcgan makes no image of an image: use a run of one that does, such as task=pix2pix" in said
    assert main(["generate", str(run), f"out={tmp_path / 'faces'}"]) == 2
    assert "makes no images of latents" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "dreams"]


def test_predict_writes_translations_of_loose_images_and_of_a_set(run, tmp_path):
    faces = pack_faces(tmp_path / "set", "pix2pix", size=32)
    made = {}
    for name, place in (("loose", tmp_path / "loose"), ("set", faces / "eval")):
        if name == "loose":
            place.mkdir()
            Image.fromarray(photo(1, 32, 32)).save(place / "a.png")
        out = tmp_path / f"of_{name}"
        assert main(["predict", str(run), f"in={place}", f"out={out}", "draw=true"]) == 0
        with (out / "predictions.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert all(0 < float(row["change"]) < 1 for row in rows)
        made[name] = {row["image"]: read(out / "drawn" / f"{row['image']}.jpg") for row in rows}
    assert made["loose"].keys() == {"a.png"}
    model = load_run(run)
    from data_shards.loading.loader import EvalLoader
    from data_shards.shard_format.shard_set import ShardSet
    from hpc.data import views

    shards = ShardSet.open(faces / "eval")
    assert len(made["set"]) == len(shards)
    loader = EvalLoader(shards, rank=0, world=1, batch=8, view=views.evaluation(model.config, 32))
    batch = next(iter(loader))
    given = batch.images["b"]  # the input is on the right
    wanted = model.predict(given.permute(0, 2, 3, 1).numpy())["image"]
    for row, output in enumerate(wanted):
        drawn = made["set"][shards.member(int(batch.ids[row, 0]))]
        assert np.abs(drawn - (output.transpose(1, 2, 0) * 127.5 + 127.5)).mean() < 12  # a JPEG
