"""Reading twins: a pure function of crop and target; labels follow the pixels; host and DALI agree."""

import importlib.util
import shutil

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import DecodeError, UserError
from data_shards.images.placed import decode_windows
from data_shards.images.twin import encode_twin
from data_shards.loading.loader import EvalLoader, TrainLoader
from data_shards.loading.twins import serve
from data_shards.pack.twins import add_twins
from data_shards.sampling.order import PlainOrder
from data_shards.sampling.placed import Placed
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from data_shards.shard_format.twins import twin_sizes
from launch.cli import main
from tests.support.painted import found_box, paint
from tests.support.small_set import jpeg, photo

SIDES = (16, 40, 64, 96)


@st.composite
def placings(draw):
    """(source, crop, target) of one image, and its twins' grids, smallest first."""
    source = np.array([[draw(st.integers(20, 900)), draw(st.integers(20, 900))]])
    sides = [draw(st.integers(1, length)) for length in source[0].tolist()]
    corner = [
        draw(st.integers(0, length - side)) for length, side in zip(source[0].tolist(), sides, strict=True)
    ]
    target = np.array([draw(st.integers(1, 128)), draw(st.integers(1, 128))])
    grids = [np.stack(twin_sizes(source[:, 0], source[:, 1], side), axis=1) for side in SIDES]
    return source, np.array([corner + sides]), target, grids


@settings(max_examples=300, deadline=None)
@given(placings())
def test_the_smallest_twin_with_enough_pixels_serves(placing):
    source, crop, target, grids = placing
    served = serve(source, crop, target, grids)
    which = int(served.which[0])
    stored = [source, *grids][which]
    assert served.source.tolist() == stored.tolist()
    if which:
        assert (served.crop[:, 2:] >= target).all()
    else:
        assert served.crop.tolist() == crop.tolist()
    for grid in grids[: which - 1] if which else grids:  # none of the smaller ones has enough
        if grid[0, 0]:
            low, high = (np.rint(edge * grid / source) for edge in (crop[:, :2], crop[:, :2] + crop[:, 2:]))
            assert (high - low < target + 1).any()  # halves may be rounded either way here
    alone = serve(np.tile(source, (3, 1)), np.tile(crop, (3, 1)), target, [np.tile(g, (3, 1)) for g in grids])
    assert alone[1:2].crop.tolist() == served.crop.tolist()
    assert alone.which.tolist() == [which] * 3


@settings(max_examples=300, deadline=None)
@given(placings(), st.data())
def test_boxes_follow_within_half_a_pixel_of_the_target(placing, data):
    """Labels go by the original's crop, pixels by the twin's."""
    source, crop, target, grids = placing
    served = serve(source, crop, target, grids)
    x, y, wide, high = crop[0].tolist()
    left, top = data.draw(st.floats(x, x + wide)), data.draw(st.floats(y, y + high))
    box = np.array([[left, top, data.draw(st.floats(left, x + wide)), data.draw(st.floats(top, y + high))]])
    flip = np.array([data.draw(st.booleans())])
    size, offset = target[None], np.zeros((1, 2), int)
    labels = Placed(source, crop, size, offset, flip, tuple(target[::-1].tolist()))
    pixels = served.placed(labels)
    shown = pixels.boxes(box * np.tile(served.source / source, 2))
    if served.which[0]:
        assert np.abs(shown - labels.boxes(box)).max() <= 0.5 + 1e-9
    else:
        assert np.array_equal(shown, labels.boxes(box))


@pytest.mark.parametrize("seed", range(40))
def test_painted_boxes_are_where_labels_say(seed):
    random = np.random.default_rng(seed)
    size = tuple(random.integers(200, 400, 2).tolist())
    corner = random.integers(0, np.array(size) // 3).tolist()
    crop = [
        *corner,
        *(int(random.integers(120, side - at + 1)) for side, at in zip(size, corner, strict=True)),
    ]
    low = [at + random.integers(20, 30) for at in crop[:2]]
    box = [*low, *(at + side - random.integers(20, 30) for at, side in zip(crop[:2], crop[2:], strict=True))]
    target = tuple(random.integers(20, 48, 2).tolist())
    source = np.array([size])
    grids = [np.stack(twin_sizes(*source.T, side), axis=1) for side in (48, 96)]
    labels = Placed(
        source,
        np.array([crop]),
        np.array([target[::-1]]),
        np.zeros((1, 2), int),
        random.random(1) < 0.5,
        target,
    )
    served = serve(source, labels.crop, labels.size, grids)
    stored = tuple(served.source[0].tolist())
    data = (
        jpeg(paint(size, box)) if stored == size else encode_twin(paint(size, box), stored, png=seed % 2 == 0)
    )
    out = np.zeros((*target, 3), np.uint8)
    decode_windows([out], data, stored, [served.placed(labels).window(0)])
    found = found_box(out[..., 1] / 255)
    assert np.abs(found - labels.boxes(np.array([box]))[0]).max() <= 0.5 + 0.12  # of the resize itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen images, most of them larger than twins of 32 and 64 pixels, four grey, one small."""
    src, out = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("out")
    for number in range(16):
        image = photo(
            number, 60 if number == 5 else 140 + 9 * number, 60 if number == 5 else 130 + 7 * number
        )
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if number % 4 == 3 else image
        (src / f"p{number % 2}").mkdir(exist_ok=True)
        (src / f"p{number % 2}" / f"{number}.jpg").write_bytes(jpeg(image))
    assert main(["pack", "source=folder", f"src={src}", f"out={out}", "shard_mb=0.05", "workers=1"]) == 0
    add_twins(out / "train", [32, 64], workers=1)
    return out / "train"


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


def batches(
    folder,
    twins,
    *,
    size=32,
    crop_area=(1.0, 1.0),
    backend="host",
    count=3,
    world=1,
    rank=0,
    clock=0,
    device_id=None,
):
    shards = ShardSet.open(folder)
    loader = TrainLoader(
        PlainOrder(shards, 0),
        shards,
        seed=1,
        rank=rank,
        world=world,
        batch=8,
        backend=backend,
        threads=2,
        ahead=2,
        view=View((size, size), crop_area=crop_area, flip=0.5),
        twins=twins,
        device_id=device_id,
    )
    loader.start(clock)
    try:
        return [loader.next() for _ in range(count)]
    finally:
        loader.close()


def images(found) -> torch.Tensor:
    return torch.cat([batch.images["image"] for batch in found]).float()


@pytest.mark.parametrize("crop_area", [(1.0, 1.0), (0.3, 1.0)])
def test_twins_show_what_originals_show(folder, crop_area):
    plain, twins = (batches(folder, sides, crop_area=crop_area) for sides in ([], [32, 64]))
    for one, other in zip(plain, twins, strict=True):
        assert torch.equal(one.ids, other.ids)
    difference = (images(plain) - images(twins)).abs().mean((1, 2, 3))
    assert 0 < difference.mean() < 4
    assert difference.max() < 12
    assert torch.equal(images(plain), images(batches(folder, [], crop_area=crop_area)))


def test_the_same_at_any_world_size_and_start(folder):
    straight = images(batches(folder, [32, 64], crop_area=(0.3, 1.0)))
    parts = [batches(folder, [32, 64], crop_area=(0.3, 1.0), world=2, rank=rank) for rank in (0, 1)]
    both = [part for pair in zip(*parts, strict=True) for part in pair]
    assert torch.equal(images(both), straight)
    assert torch.equal(
        images(batches(folder, [32, 64], crop_area=(0.3, 1.0), clock=8, count=2)), straight[8:]
    )


def test_a_target_above_all_twins_reads_originals(folder):
    assert torch.equal(images(batches(folder, [32, 64], size=65)), images(batches(folder, [], size=65)))


def test_more_twins_than_a_run_names_change_nothing(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "train")
    before = images(batches(copy, [64]))
    add_twins(copy, [48], workers=1)
    assert torch.equal(images(batches(copy, [64])), before)


@pytest.mark.skipif(not importlib.util.find_spec("nvidia.dali"), reason="no DALI")
@pytest.mark.parametrize(("size", "crop_area"), [(32, (1.0, 1.0)), (24, (0.3, 1.0)), (48, (0.6, 1.0))])
def test_dali_reads_the_same(folder, size, crop_area):
    host, dali = (
        batches(folder, [32, 64], size=size, crop_area=crop_area, backend=name) for name in ("host", "dali")
    )
    difference = (images(host) - images(dali)).abs().mean((1, 2, 3))
    assert difference.mean() < 4
    if crop_area == (1.0, 1.0):  # PNG twins at their own size: no interpolation, no rounding
        assert (difference == 0).float().mean() > 0.3


@gpu
def test_dali_reads_the_same_on_a_gpu(folder):
    """PNG twins, which the GPU's decoder leaves to the host, beside JPEG ones and originals in one batch."""
    host = images(batches(folder, [32, 64], size=24, crop_area=(0.3, 1.0)))
    found = batches(folder, [32, 64], size=24, crop_area=(0.3, 1.0), backend="dali", device_id=0)
    assert (host - images(found).cpu()).abs().mean((1, 2, 3)).mean() < 4


def test_evaluation_reads_originals(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "train")
    for path in (copy / "twins").rglob("*.tar"):
        data = bytearray(path.read_bytes())
        data[600:] = bytes(len(data) - 600)
        path.write_bytes(data)
    loader = EvalLoader(ShardSet.open(copy), rank=0, world=1, batch=16, view=View((32, 32)))
    [batch] = list(loader)
    assert len(batch) == 16
    with pytest.raises(
        DecodeError, match=r"twins/\d+/.*\.tar:p\d/\d+\.(png|jpg) .*does not decode \(its bytes"
    ):
        batches(copy, [32, 64])


def test_a_twin_that_is_not_there_is_named(folder):
    with pytest.raises(UserError, match=r"has no twin of 48 pixels \(only 32, 64\): type rostro twins"):
        batches(folder, [48])
