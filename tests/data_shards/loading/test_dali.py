"""DALI against the host backend: the same ids, crops, flips, colours; pixels differ by interpolation only."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_shards.loading.dali import DaliBackend
from data_shards.loading.loader import EvalLoader, TrainLoader
from data_shards.sampling.order import GroupOrder, PlainOrder
from data_shards.sampling.view import View
from hpc.config.schema import Augment
from hpc.data.views import view_of
from tests.support.small_set import build, jpeg, photo

pytest.importorskip("nvidia.dali")

OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    blobs = [jpeg(photo(n, 128 + 7 * n, 140 + 3 * n)) for n in range(30)]
    blobs += [jpeg(photo(n, 112, 112)) for n in range(30, 40)]
    blobs += [jpeg(photo(n, 150, 130)[..., 0]) for n in range(40, 44)]  # grey
    return build(tmp_path_factory.mktemp("set"), blobs, [4] * 11)


def batches(shards, backend, augment, count=3, device_id=None):
    train = TrainLoader(
        GroupOrder(shards, 0, group=4),
        shards,
        seed=5,
        rank=1,
        world=2,
        batch=32,
        backend=backend,
        threads=2,
        ahead=2,
        view=view_of(augment, (112, 112)),
        fields=("identity",),
        device_id=device_id,
    )
    train.start(32)
    out = [train.next() for _ in range(count)]
    train.close()
    return out


def assert_near(one, other, mean):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.positions, b.positions)
        assert torch.equal(a.labels["identity"], b.labels["identity"])
        difference = (
            (a.images["image"].cpu().float() - b.images["image"].cpu().float()).abs().mean(dim=(1, 2, 3))
        )
        assert difference.mean() < mean
        assert difference.max() < 2 * mean


AUGMENTS = {
    "everything": Augment(crop_area=[0.3, 1.0], hue=15.0),
    "crop": Augment(flip=0.0, **OFF),
    "flip": Augment([1.0, 1.0], flip=0.5, **OFF),
    "colour": Augment([1.0, 1.0], flip=0.0, saturation=0.5),
}


@pytest.mark.parametrize("name", AUGMENTS)
def test_equals_the_host_backend_but_for_interpolation(shards, name):
    """Mean absolute difference of a batch below 1.5 of 255; unrelated images differ by about 60."""
    host, dali = (batches(shards, backend, AUGMENTS[name]) for backend in ("host", "dali"))
    assert_near(host, dali, 1.5)
    assert (host[0].images["image"].float() - host[1].images["image"].float()).abs().mean() > 20


def test_images_stored_at_the_networks_size_come_out_as_on_the_host(tmp_path):
    shards = build(tmp_path, [jpeg(photo(n, 112, 112)) for n in range(44)], [4] * 11)
    for one, other in zip(
        *(batches(shards, backend, AUGMENTS["flip"]) for backend in ("host", "dali")), strict=True
    ):
        assert (one.images["image"].float() - other.images["image"].float()).abs().max() <= 2


def test_evaluation_equals_the_host(shards):
    host, dali = (
        list(
            EvalLoader(
                shards, rank=0, world=1, batch=16, view=View((64, 64)), backend=name, fields=("identity",)
            )
        )
        for name in ("host", "dali")
    )
    assert [len(batch) for batch in dali] == [16, 16, 12]
    assert_near(host, dali, 1.5)


def test_batches_are_tensors_of_their_own(shards):
    """DALI uses its buffers again: what was handed over must not change."""
    train = TrainLoader(
        PlainOrder(shards, 0),
        shards,
        seed=0,
        rank=0,
        world=1,
        batch=8,
        backend="dali",
        threads=1,
        ahead=1,
        view=view_of(AUGMENTS["flip"], (64, 64)),
    )
    train.start(0)
    first = train.next()
    copy = first.images["image"].clone()
    for _ in range(4):
        train.next()
    train.close()
    assert torch.equal(first.images["image"], copy)


def test_dali_is_imported_only_when_used():
    code = "import sys, data_shards.loading.loader; sys.exit('nvidia.dali' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("name", AUGMENTS)
def test_mixed_decode_on_the_gpu_equals_the_host(shards, name):
    host = batches(shards, "host", AUGMENTS[name])
    device = batches(shards, "dali", AUGMENTS[name], device_id=0)
    assert all(batch.images["image"].is_cuda for batch in device)
    assert all(batch.images["image"].permute(0, 2, 3, 1).is_contiguous() for batch in device)
    assert_near(host, device, 3.0)


def test_images_are_asked_for_on_the_stream_that_copies_them(monkeypatch):
    asked = []
    backend = DaliBackend(None, windows=1, threads=1, ahead=1, device_id=0)
    backend._pipe = SimpleNamespace(run=lambda stream: asked.append(stream) or ("images",))
    backend._fed.append("job")
    monkeypatch.setattr(backend, "_take", lambda job, images: images)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    assert backend.next() == ("job", ("images",))
    assert asked == ["stream of 0"]


@pytest.mark.gpu
@gpu
def test_images_are_whole_on_a_stream_that_lags_behind(shards):
    wanted = batches(shards, "dali", AUGMENTS["everything"], count=8, device_id=0)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(2_000_000_000)  # cycles: DALI decodes all batches meanwhile, into few buffers
        found = batches(shards, "dali", AUGMENTS["everything"], count=8, device_id=0)
        torch.cuda.current_stream().synchronize()
    assert all(torch.equal(a.images["image"], b.images["image"]) for a, b in zip(wanted, found, strict=True))


@pytest.mark.gpu
@gpu
def test_mixed_decode_is_a_function_of_the_clock(shards):
    one, two = (batches(shards, "dali", AUGMENTS["everything"], device_id=0) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        assert torch.equal(a.images["image"], b.images["image"])
