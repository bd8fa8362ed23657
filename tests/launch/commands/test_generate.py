"""`rostro generate`: folders, grids, walks, matrices of counted latents; what it refuses; other commands."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_shards.batch import Batch
from hpc.inference.generate import slerp
from hpc.inference.predictor import load_run
from launch.cli import main
from models import dcgan, progan, stylegan
from tests.support.generating_run import generating_run
from tests.support.judged import judged_run
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {job: generating_run(folder / job, job) for job in ("dcgan", "progan", "stylegan")}


def read(path: Path) -> np.ndarray:
    """RGB [h, w, 3] of a PNG."""
    return cv2.imread(str(path))[:, :, ::-1]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("job", "side"), [("dcgan", 16), ("progan", 8), ("stylegan", 8)])
def test_a_folder_holds_what_the_generator_of_the_task_makes(runs, job, side, tmp_path, capsys):
    assert main(["generate", str(runs[job]), "n=18", "seed=4", f"out={tmp_path / 'a'}"]) == 0
    assert f"{side} pixels, by {job} at 48 (ema)" in capsys.readouterr().out
    assert main(["generate", str(runs[job]), "n=3", "seed=4", f"out={tmp_path / 'b'}"]) == 0
    made, few = files(tmp_path / "a"), files(tmp_path / "b")
    assert list(made) == [f"{number:06}.png" for number in range(18)]
    assert few == {name: made[name] for name in list(made)[:3]}  # a number and a seed name an image
    model = load_run(runs[job])
    with torch.inference_mode():
        shown = model.task.generator(model.nets).at(Batch.of_positions(torch.arange(18), 4))
        wanted = shown.clamp(-1, 1)
    for number in range(18):
        pixels = wanted[number].permute(1, 2, 0).numpy() * 127.5 + 127.5
        image = read(tmp_path / "a" / f"{number:06}.png")
        assert image.shape == (side, side, 3)
        assert np.abs(image - pixels).max() <= 0.51


def test_a_grid_and_its_options(runs, tmp_path, capsys):
    out = tmp_path / "deep" / "grid.png"
    words = ["generate", str(runs["stylegan"]), "n=5", f"out={out}"]
    assert main(words) == 0
    first = read(out)
    assert first.shape == (2 * 8 + 3 * 2, 3 * 8 + 4 * 2, 3)
    assert main(words) == 2
    assert f"{out} exists already: give another place, or add overwrite=true" in capsys.readouterr().err
    assert main([*words, "overwrite=true", "seed=1"]) == 0
    assert (read(out) != first).any()
    assert main([*words, "overwrite=true", "level=0"]) == 0
    assert read(out).shape == (2 * 4 + 3 * 2, 3 * 4 + 4 * 2, 3)
    assert main(["generate", str(runs["stylegan"]), "n=3", f"out={tmp_path / 'same'}", "truncation=0"]) == 0
    same = [read(path).astype(int) for path in sorted((tmp_path / "same").iterdir())]
    assert max(np.abs(image - same[0]).max() for image in same) <= 1  # the mean face


def test_a_walk_passes_its_stops_and_comes_back(runs, tmp_path):
    for job in ("dcgan", "stylegan"):
        walk, out = tmp_path / f"{job}.gif", tmp_path / job
        words = ["stops=3", "frames=12", f"interpolate={walk}", "n=3", f"out={out}"]
        assert main(["generate", str(runs[job]), *words]) == 0
        with Image.open(walk) as shown:
            assert shown.n_frames == 12
            assert shown.info["loop"] == 0
            frames = []
            for number in range(12):
                shown.seek(number)
                frames.append(np.asarray(shown.convert("RGB"), int))
        first = read(out / "000000.png").astype(int)
        assert np.abs(frames[0] - first).mean() < 8  # GIF has 256 colours
        if job == "dcgan":  # a network without noise passes the other latents too
            for stop in (1, 2):
                other = read(out / f"00000{stop}.png").astype(int)
                gaps = [np.abs(frame - other).mean() for frame in frames]
                assert int(np.argmin(gaps)) == 4 * stop


def test_slerp_keeps_to_the_arc():
    one, other = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    torch.testing.assert_close(slerp(one, other, 0.0), one)
    torch.testing.assert_close(slerp(one, other, 1.0), other)
    torch.testing.assert_close(slerp(one, other, 0.5), torch.tensor([3.0, 3.0, 0.0]) / 2**0.5)
    third = slerp(one, other, 1 / 3)
    assert float(torch.acos(third @ one / third.norm() / 2)) == pytest.approx(np.pi / 6, abs=1e-5)
    torch.testing.assert_close(slerp(one, 2 * one, 0.5), 1.5 * one)


def test_a_matrix_mixes_styles(runs, tmp_path, capsys):
    path = tmp_path / "mix.png"
    words = ["rows=2", "columns=3", "crossover=2", f"mix={path}"]
    assert main(["generate", str(runs["stylegan"]), *words]) == 0
    cells = read(path).reshape(3, 8, 4, 8, 3).swapaxes(1, 2).astype(int)
    assert (cells[0, 0] == 255).all()
    model = load_run(runs["stylegan"])
    made = model.task.generator(model.nets)
    batch = Batch.of_positions(torch.arange(5), 0)
    latents, noise = batch.latents("shown", made.latents), made.noise_at(batch)
    assert noise is not None
    with torch.inference_mode():
        same = made.mixed(latents[:2], latents[:2], 2, noise[:2])
        torch.testing.assert_close(same, made(latents[:2], noise[:2]))
        mixed = made.mixed(latents[1:2], latents[4:5], 2, noise[1:2])[0].permute(1, 2, 0).numpy()
    assert np.abs(cells[2, 2] - np.clip(mixed * 127.5 + 127.5, 0, 255)).max() <= 0.51
    for job, word, said in (
        ("progan", "crossover=2", "no styles to mix"),
        ("stylegan", "crossover=4", "have 4 layers of styles: type 1 to 3"),
    ):
        assert main(["generate", str(runs[job]), f"mix={tmp_path / 'no.png'}", word]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "out is missing: type out=DIR, out=FILE.png"),
        (["out=faces.jpg"], "out=faces.jpg does not end as it must: type out=NAME or out=NAME.png"),
        (["interpolate=walk.png"], "type interpolate=NAME.gif or interpolate=NAME.mp4"),
        (["reconstruct=x", "out=y"], "reconstruct: task stylegan of"),
        (["attribute=Smiling", "out=y.png"], "finds no latents of images: use a run of one that does"),
        (["reconstruct=x"], "out is missing: reconstruct= needs it: type out=DIR or out=FILE.png"),
        (["reconstruct=x", "attribute=Smiling"], "reconstruct= and attribute= both name what out= is"),
        (["attribute=Smiling", "out=y"], "out=y does not end as it must: type out=NAME.png"),
        (["movie=growth.png"], "type movie=NAME.gif or movie=NAME.mp4"),
        (["movie=growth.gif"], "holds no grid, which a training saves at each evaluation"),
        (["out=x", "truncation=2"], "truncation=2.0 is not 0 to 1"),
        (["out=x", "truncation=nan"], "truncation=nan is not 0 to 1"),
        (["out=x", "level=one"], "level=one is not a whole number"),
        (["out=x", "level=2"], "have trained the levels 0 to 1"),
        (["mix=x.png", "rate=3"], "rate= belongs to movie=: add movie=FILE.gif|FILE.mp4, or leave it out"),
        (["movie=x.gif", "grids=ab", "weights=raw"], "weights= belongs to out=, interpolate=, mix=, recon"),
        (["out=x", "columns=3"], "columns= belongs to mix=: add mix=FILE.png, or leave it out"),
        (["out=x", "rows=3"], "rows= belongs to mix= or attribute=: add one of them, or leave it out"),
        (["mix=x.png", "stops=3"], "stops= belongs to interpolate=: add interpolate=FILE.gif|FILE.mp4, or"),
        (["interpolate=x.gif", "n=3"], "n= belongs to out=: add out=DIR|FILE.png, or leave it out"),
        (["out=x", "data=y"], "data= belongs to attribute=: add attribute=NAME, or leave it out"),
        (["out=x", "steps=7"], "steps= belongs to attribute="),
        (["reconstruct=x", "out=y", "seed=0"], "seed= does nothing beside reconstruct=: leave it out"),
        (["n=3"], "out is missing: type out=DIR, out=FILE.png"),
        (["out=x", "n=0"], "n=0 is not 1 to 1_000_000"),
        (["out=x.png", "n=1_000_000", "overwrite=true"], ""),
    ],
)
def test_words_that_do_not_fit_are_refused(runs, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if not said:
        monkeypatch.setattr("hpc.inference.generate.LARGEST", 1000)
        said = (
            "n=1000000: 1,000,000 images of 8 pixels are too many for one picture, 15 fit: give out= a folder"
        )
    assert main(["generate", str(runs["stylegan"]), *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["n=1", "out=f.png", "mix=m.png", "rows=9", "columns=9", "crossover=2"],
            "rows=9 columns=9: 100 images",
        ),
        (["n=1", "out=f.png", "interpolate=w.gif", "frames=99"], "for one GIF, 15 fit: type fewer, or"),
        (["n=1", "out=f.png", "movie=g.gif"], "000000000048.png is not a whole PNG"),
        (["interpolate=a.gif", "movie=./a.gif"], "interpolate=a.gif and movie=a.gif are in each other's way"),
        (["n=1", "out=a.png", "mix=a.png/b.png"], "out=a.png and mix=a.png/b.png are in each other's way"),
    ],
)
def test_nothing_is_written_where_a_part_is_refused(runs, words, said, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs["stylegan"], run)
    (run / "samples" / "generated").mkdir(parents=True)
    (run / "samples" / "generated" / "000000000048.png").write_text("damaged")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("hpc.inference.generate.LARGEST", 1000)
    assert main(["generate", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_video_has_any_number_of_frames(runs, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="videos need PyAV, the extra `video`")
    monkeypatch.setattr("hpc.inference.generate.LARGEST", 1000)
    walk = tmp_path / "walk.mp4"
    assert main(["generate", str(runs["dcgan"]), "frames=18", "stops=2", f"interpolate={walk}"]) == 0
    assert walk.stat().st_size > 0


def test_what_is_there_is_not_written_over(runs, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, said in (("full", "full exists already"), ("file", "file is not a folder")):
        assert main(["generate", str(runs["dcgan"]), "n=1", f"out={tmp_path / place}"]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]


def test_a_run_that_makes_no_images_is_refused(tmp_path, capsys):
    shards = pack_set(tmp_path / "set", identities=8, each=4)
    run = judged_run(tmp_path / "faces", shards)
    assert main(["generate", str(run), f"out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "task siamese makes no images of latents: use a run of one that does" in said
    assert not (tmp_path / "out").exists()


def test_predict_names_generate(runs, tmp_path, capsys):
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), np.zeros((20, 20, 3), np.uint8))
    assert main(["predict", str(runs["progan"]), f"in={photo}", f"out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "task progan makes images of latents and looks at none: type `rostro generate " in said
    assert not (tmp_path / "out").exists()
    assert main(["verify", str(runs["progan"]), str(photo), str(photo)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("job", ["dcgan", "progan", "stylegan"])
def test_an_export_is_the_generator(runs, job, tmp_path):
    """Weights and card rebuild it; the noise is left out."""
    assert main(["export", str(runs[job]), f"out={tmp_path / 'net'}", "onnx=false"]) == 0
    card = json.loads((tmp_path / "net" / "model.json").read_text())
    assert card["preprocessing"] is None
    made, latents = card["generator"], torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert (made["latents"], made["distribution"]) == (8, "standard normal")
    tensors = load_file(tmp_path / "net" / "model.safetensors")
    net = {"dcgan": dcgan, "progan": progan, "stylegan": stylegan}[job].Generator(16, width=8, latents=8)
    net.load_state_dict({name[2:]: value for name, value in tensors.items() if name.startswith("G.")})
    level = () if job == "dcgan" else (1, 0.5)
    words = {"truncation": 0.7} if job == "stylegan" else {}
    model = load_run(runs[job])
    with torch.no_grad():
        wanted = model.task.generator(model.nets)(latents)
        assert wanted.shape == (3, 3, made["images"]["size"], made["images"]["size"])
        torch.testing.assert_close(net.eval()(latents, *level, **words), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["dcgan", "progan", "stylegan"])
def test_the_graph_of_an_export_makes_the_same_images(runs, job, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", str(runs[job]), f"out={tmp_path}"]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    latents = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(["image"], {"latents": latents.numpy()})
    model = load_run(runs[job])
    with torch.no_grad():
        wanted = model.task.generator(model.nets)(latents).clamp(-1, 1).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
