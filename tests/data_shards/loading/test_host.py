"""The host decoder against a plain reference: full decode, crop, resize, colour, flip."""

import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg

from data_shards.errors import UserError
from data_shards.images.normalize import normalise
from data_shards.images.pixels import square
from data_shards.images.placed import Window, decode_windows
from data_shards.loading import feeder
from data_shards.loading.host import HostBackend
from data_shards.loading.loader import EvalLoader, decode_images
from data_shards.sampling.view import View
from tests.support.small_set import build, jpeg, photo

COLOUR = np.array([[1.1, 0.05, 0, -5], [0, 0.9, 0.1, 3], [0.1, 0, 1.0, 12]], np.float32)


def decode(blob, size, crop, *, flip=False, colour=None, side=112):
    out = np.full((side, side, 3), 7, np.uint8)
    window = Window(crop, (side, side), (0, 0), flip, (side, side))
    decode_windows([out], blob, size, [window], colour=colour)
    return out.astype(np.int32)


def reference(blob, crop, *, flip=False, colour=None, side=112):
    """In float, from a full decode by OpenCV, averaging areas where the crop shrinks."""
    x, y, wide, high = crop
    image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR_RGB)[y : y + high, x : x + wide]
    how = cv2.INTER_AREA if min(wide, high) >= side else cv2.INTER_LINEAR
    image = cv2.resize(image.astype(np.float32), (side, side), interpolation=how)
    if colour is not None:
        image = image @ colour[:, :3].T + colour[:, 3]
    return np.clip(image[:, ::-1] if flip else image, 0, 255)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("colour", [None, COLOUR])
@pytest.mark.parametrize(
    ("size", "crop", "tolerance"),
    [
        ((112, 112), (0, 0, 112, 112), 1.0),  # as stored
        ((112, 112), (9, 4, 80, 90), 1.0),  # enlarged
        ((250, 200), (30, 20, 150, 160), 1.0),  # shrunk
        ((300, 200), (30, 20, 200, 90), 1.0),  # shrunk one way, enlarged the other
        ((640, 480), (100, 51, 300, 311), 2.0),  # decoded at half scale
        ((999, 1001), (1, 2, 993, 997), 2.5),  # decoded at 1/8 scale, odd sizes
        ((2400, 2500), (3, 5, 2301, 2333), 2.5),  # more than twice too large also at 1/8 scale
    ],
)
def test_equals_the_reference(size, crop, tolerance, flip, colour):
    blob = jpeg(photo(5, *size, grain=2.0))
    ours = decode(blob, size, crop, flip=flip, colour=colour)
    assert np.abs(ours - reference(blob, crop, flip=flip, colour=colour)).mean() < tolerance


def test_a_grey_jpeg_becomes_rgb():
    grey = photo(2, 112, 112)[..., 1]
    out = decode(jpeg(grey), (112, 112), (0, 0, 112, 112))
    np.testing.assert_array_equal(out[..., 0], out[..., 2])
    assert np.abs(out[..., 0] - grey.astype(int)).mean() < 6
    small = decode(jpeg(cv2.resize(grey, (500, 500))), (500, 500), (0, 0, 500, 500), flip=True)
    assert np.abs(small[..., 1] - grey[:, ::-1].astype(int)).mean() < 12


def test_the_stored_image_comes_out_as_libjpeg_gives_it():
    blob = jpeg(photo(3, 112, 112))
    full = simplejpeg.decode_jpeg(blob, "RGB", fastdct=False, fastupsample=False)
    np.testing.assert_array_equal(decode(blob, (112, 112), (0, 0, 112, 112)), full)
    np.testing.assert_array_equal(decode(blob, (112, 112), (0, 0, 112, 112), flip=True), full[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_an_image_of_another_size_than_the_index_says_is_refused(flip):
    with pytest.raises(ValueError, match="not 112x112 pixels"):
        decode(jpeg(photo(3, 100, 112)), (112, 112), (0, 0, 112, 112), flip=flip)


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_damage_raises_value_error(damage):
    blob = jpeg(photo(3, 112, 112))
    bad = {"empty": b"", "garbage": bytes(900), "truncated": blob[: len(blob) // 2]}[damage]
    for flip in (False, True):
        with pytest.raises(ValueError, match=r"."):
            decode(bad, (112, 112), (0, 0, 112, 112), flip=flip)


def test_loose_images_give_their_centre_square():
    blobs = [jpeg(photo(1, 200, 150)), jpeg(photo(2, 90, 120)), jpeg(photo(3, 64, 64)[..., 0])]
    out = decode_images(blobs, 64)
    assert out.shape == (3, 64, 64, 3)
    assert np.abs(out[0] - reference(blobs[0], (25, 0, 150, 150), side=64)).mean() < 2
    assert np.abs(out[1] - reference(blobs[1], (0, 15, 90, 90), side=64)).mean() < 1.5
    assert decode_images([], 64).shape == (0, 64, 64, 3)
    with pytest.raises(UserError, match="image 1 does not decode"):
        decode_images([blobs[0], b"no jpeg"], 64)


@pytest.mark.parametrize("size", [(250, 250), (301, 200), (64, 64), (100, 64), (40, 50)])
def test_packing_evaluation_and_verify_resize_alike(tmp_path, size):
    """One function: what packing stores, evaluations decode and `verify` reads differ only by JPEG coding."""
    from launch.commands.verify import image

    blob = jpeg(photo(4, *size, grain=2.0))
    (tmp_path / "a.jpg").write_bytes(blob)
    wanted = square(image(str(tmp_path / "a.jpg")), 64)
    np.testing.assert_array_equal(decode_images([blob], 64)[0], wanted)
    shards = build(tmp_path / "set", [blob], [1])
    (batch,) = EvalLoader(shards, rank=0, world=1, batch=1, view=View((64, 64)))
    np.testing.assert_array_equal(batch.images["image"][0].permute(1, 2, 0).numpy(), wanted)
    packed = decode_images([normalise(blob, size=64).jpeg], 64)[0]
    assert np.abs(packed.astype(int) - wanted).mean() < 2.5


@pytest.mark.parametrize("key", ["threads", "ahead"])
def test_no_threads_or_no_batches_ahead_are_refused(key):
    with pytest.raises(UserError, match=rf"data\.{key}=0"):
        HostBackend(None, **{"threads": 1, "ahead": 1, key: 0})


def test_a_stalled_source_does_not_hold_close(monkeypatch):
    monkeypatch.setattr(feeder, "PATIENCE", 0.01)
    entered, gives_way = threading.Event(), threading.Event()

    def jobs(number):
        entered.set()
        gives_way.wait()

    backend = HostBackend(SimpleNamespace(hint=None), threads=1, ahead=1)
    backend.start(jobs)
    assert entered.wait(10)
    (waiting,) = (thread for thread in threading.enumerate() if thread.name == "batches")
    backend.close()
    assert waiting.is_alive()
    assert waiting.daemon  # nor does it hold the end of the process
    gives_way.set()
    waiting.join(10)
    assert not waiting.is_alive()
