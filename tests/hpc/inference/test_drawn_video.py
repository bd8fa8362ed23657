"""A drawn video: all frames, the rate of its source, nothing half-written and nothing overwritten."""

from fractions import Fraction

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.sources.video_frames import decoded, length_and_rate
from hpc.inference.drawn_video import DrawnVideo

pytest.importorskip("av")


def frame(level: int) -> np.ndarray:
    return np.full((32, 48, 3), level, np.uint8)


def test_it_has_all_frames_at_the_rate_of_its_source(tmp_path):
    with DrawnVideo(tmp_path / "drawn") as video:
        for level in (20, 120, 220):
            video.add("below/clip.mp4", Fraction(10), frame(level))
    path = tmp_path / "drawn" / "below" / "clip.mp4"
    assert length_and_rate(str(path)) == (3, 10)
    levels = [image.mean() for _, image in decoded(str(path), 3)]
    np.testing.assert_allclose(levels, (20, 120, 220), atol=6)
    assert [each.name for each in path.parent.iterdir()] == ["clip.mp4"]


def test_other_endings_become_mp4_and_no_frame_writes_nothing(tmp_path):
    with DrawnVideo(tmp_path) as video:
        video.add("clip.avi", Fraction(25), frame(0))
    with DrawnVideo(tmp_path / "none"):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["clip.avi.mp4"]


def test_an_error_leaves_nothing_behind(tmp_path):
    def fails():
        with DrawnVideo(tmp_path) as video:
            video.add("clip.mp4", Fraction(25), frame(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="is there already"), DrawnVideo(tmp_path) as video:
        video.add("clip.mp4", Fraction(25), frame(0))
    assert (tmp_path / "clip.mp4").read_bytes() == b"mine"
