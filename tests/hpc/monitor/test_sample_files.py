"""Grids that become files: in full size, cut back with the run; in TensorBoard they may be reduced."""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpc.config.schema import Config
from hpc.monitor import projector, sample_files
from hpc.monitor.monitor import Monitor


def monitor_of(run: Path, clock: int | None = None) -> Monitor:
    return Monitor(run, Config(images=1000), rank=0, resume_clock=clock)


def shown(run: Path, tag: str) -> list[tuple[int, Image.Image]]:
    """Clock and picture of a series of TensorBoard."""
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    return [(event.step, Image.open(io.BytesIO(event.encoded_image_string))) for event in events.Images(tag)]


def names(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run / "samples")) for path in (run / "samples").rglob("*.*"))


def test_a_kept_grid_is_a_file_of_its_clock_and_others_are_not(tmp_path: Path) -> None:
    monitor = monitor_of(tmp_path)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    monitor.images(500, "generated", images, keep=True)
    monitor.images(500, "batch", images)
    monitor.close()
    assert names(tmp_path) == ["generated/000000000500.png"]
    sheet = cv2.imread(str(tmp_path / "samples" / "generated" / "000000000500.png"))[:, :, ::-1]
    pixels = images.add(1).mul(127.5).round().byte()
    np.testing.assert_array_equal(sheet, projector.grid(pixels, gap=2))
    for tag in ("pictures/generated", "pictures/batch"):
        ((clock, picture),) = shown(tmp_path, tag)
        assert clock == 500
        np.testing.assert_array_equal(np.asarray(picture), sheet)


def test_an_event_file_holds_a_large_grid_reduced(tmp_path: Path) -> None:
    monitor = monitor_of(tmp_path)
    monitor.images(500, "generated", torch.zeros(4, 3, 1200, 1200), keep=True)
    monitor.close()
    ((_, picture),) = shown(tmp_path, "pictures/generated")
    assert picture.size == (projector.MOST, projector.MOST)
    sheet = cv2.imread(str(tmp_path / "samples" / "generated" / "000000000500.png"))
    assert sheet.shape == (2406, 2406, 3)
    flat = projector.reduced(np.full((10, 4, 3), 7, np.uint8), 5)
    assert (flat.shape, set(flat.ravel())) == ((5, 2, 3), {7})


def test_a_resume_takes_away_what_lies_beyond_its_clock(tmp_path: Path) -> None:
    for clock in (100, 200, 300):
        sample_files.write(tmp_path, "generated", clock, b"x")
    folder = tmp_path / "samples" / "generated"
    (folder / ".000000000200.png.77.tmp").write_bytes(b"half")
    (folder / "mine.png").write_bytes(b"x")
    monitor_of(tmp_path, 200).close()
    kept = ["generated/000000000100.png", "generated/000000000200.png", "generated/mine.png"]
    assert names(tmp_path) == kept
    monitor_of(tmp_path).close()  # a fresh start
    assert names(tmp_path) == ["generated/mine.png"]
