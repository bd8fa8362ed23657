"""Images as GIF and MP4: their order, size and rate; the growth of a run of what it saved."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.errors import UserError
from hpc.inference import movie
from hpc.monitor.projector import png

av = pytest.importorskip("av")


def greys(count: int, height: int = 24, width: int = 32) -> list[np.ndarray]:
    """Plain images, each 20 brighter than the one before it."""
    return [np.full((height, width, 3), 20 * number, np.uint8) for number in range(count)]


def read(path: Path) -> tuple[list[np.ndarray], float]:
    """The frames of a GIF or a video, and how many there are a second."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            frames = []
            for number in range(image.n_frames):
                image.seek(number)
                frames.append(np.asarray(image.convert("RGB")))
            return frames, 1000 / image.info["duration"]
    with av.open(str(path)) as video:
        rate = float(video.streams.video[0].average_rate)
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)], rate


@pytest.mark.parametrize(("ending", "shape"), [("gif", (24, 32, 3)), ("mp4", (192, 256, 3))])
def test_frames_are_written_in_their_order(ending, shape, tmp_path):
    path = tmp_path / "deep" / f"a.{ending}"
    movie.write_movie(path, iter(greys(9)), rate=20)
    frames, rate = read(path)
    assert rate == pytest.approx(20)
    assert [frame.shape for frame in frames] == [shape] * 9
    assert [frame.mean() for frame in frames] == pytest.approx([20 * number for number in range(9)], abs=3)


def test_a_video_of_odd_sides_repeats_its_edges(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8).repeat(33, 0).repeat(33, 1)
    movie.write_movie(tmp_path / "a.mp4", [drawn[:, :299]] * 3, rate=5)
    frames, _ = read(tmp_path / "a.mp4")
    assert [frame.shape for frame in frames] == [(298, 300, 3)] * 3
    # the middle of each square keeps its luma; colours have half of the pixels
    luma = np.array([0.299, 0.587, 0.114])
    middles = (slice(16, 297, 33), slice(16, 296, 33))
    assert np.abs(frames[1][middles] @ luma - drawn[:, :299][middles] @ luma).mean() < 4


def saved(run: Path, name: str, clock: int, image: np.ndarray) -> Path:
    path = run / "samples" / name / f"{clock:012}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(image))
    return path


def test_growth_has_every_grid_at_the_size_of_the_largest(tmp_path):
    rng = np.random.default_rng(1)
    small, large = (rng.integers(0, 2, (side, side, 3), np.uint8) * 255 for side in (4, 12))
    for clock, image in ((96, large), (48, small), (1_000_000, 255 - large)):
        saved(tmp_path, "generated", clock, image)
    (tmp_path / "samples" / "generated" / "note.png").write_text("not a clock")
    grids = movie.saved_grids(tmp_path)
    assert [int(path.stem) for path in grids] == [48, 96, 1_000_000]
    size = movie.growth_size(tmp_path / "growth.gif", grids)
    assert size == (12, 12)
    movie.write_growth(tmp_path / "growth.gif", grids, size, rate=10)
    frames, rate = read(tmp_path / "growth.gif")
    assert rate == 10
    for frame, wanted in zip(frames, (small.repeat(3, 0).repeat(3, 1), large, 255 - large), strict=True):
        np.testing.assert_array_equal(frame, wanted)
    movie.write_growth(tmp_path / "growth.mp4", grids, size, rate=10)
    frames, _ = read(tmp_path / "growth.mp4")
    assert [frame.shape for frame in frames] == [(264, 264, 3)] * 3


def test_grids_that_cannot_become_a_movie_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"generated holds no grid, .*: use a run of a task that generates"):
        movie.saved_grids(tmp_path)
    path = saved(tmp_path, "translated", 48, greys(1)[0])
    with pytest.raises(UserError, match="there are those of translated: type grids=NAME"):
        movie.saved_grids(tmp_path)
    assert movie.saved_grids(tmp_path, "translated") == [path]
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"text", b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"000000000048\.png is not a whole PNG"):
            movie.growth_size(tmp_path / "a.gif", [path])
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="JPEG")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="is not a whole PNG"):
        movie.growth_size(tmp_path / "a.gif", [path])
    path.write_bytes(whole)
    monkeypatch.setattr(movie, "LARGEST", 1000)
    with pytest.raises(UserError, match=r"2 grids of 32 x 24 pixels are too many for a GIF: give FILE.mp4"):
        movie.growth_size(tmp_path / "a.gif", [path, path])
    assert not (tmp_path / "a.gif").exists()


def test_without_pyav_a_video_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"PyAV writes videos: type pip install 'rostro\[video\]'"):
        movie.check_writer(Path("a.mp4"))
    movie.check_writer(Path("a.gif"))
