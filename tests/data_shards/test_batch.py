"""Batches: cut with all that they hold, counted latents, and the way to the device."""

import numpy as np
import pytest
import torch

from data_shards.batch import Batch, _copy_stream
from data_shards.ragged import Ragged
from tests.support.samples import KINDS, samples

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


def decoded(n: int = 6, side: int = 32) -> Batch:
    """A batch as a loader delivers it: uint8, NHWC memory, masks and ragged labels."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (n, side, side, 3), np.uint8))
    mask = torch.from_numpy(rng.integers(0, 5, (n, side, side, 1), np.uint8))
    rows = torch.arange(n)
    labels = {"age": torch.arange(n), "boxes": Ragged.of_lists([torch.rand(at % 3, 4) for at in range(n)])}
    images = {"image": pixels.permute(0, 3, 1, 2), "mask": mask.permute(0, 3, 1, 2)}
    return Batch(images, labels, rows[:, None], rows, seed=3, kinds={"image": "image", "mask": "mask"})


@pytest.mark.parametrize("channels_last", [True, False])
def test_preparing_scales_images_and_leaves_masks(channels_last):
    before = decoded()
    after = before.prepare(torch.device("cpu"), channels_last=channels_last)
    assert torch.equal(after.images["image"], before.images["image"].float() / 127.5 - 1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert after.images["image"].is_contiguous(memory_format=layout)
    assert torch.equal(after.images["mask"], before.images["mask"])
    assert after.images["mask"].dtype == torch.uint8
    assert torch.equal(after.labels["boxes"].rows, before.labels["boxes"].rows)


def test_some_slots_keep_all_that_is_theirs():
    batch = samples(np.arange(8, 20), tuple(KINDS))
    part = batch[3:7]
    assert part.positions.tolist() == [11, 12, 13, 14]
    np.testing.assert_array_equal(part.placed.crop, batch.placed.crop[3:7])
    for name in ("boxes", "eyes", "species"):
        assert torch.equal(part.labels[name].of(2), batch.labels[name].of(5))
    assert torch.equal(part.latents("z", 4), batch.latents("z", 4)[3:7])
    assert part.kinds == batch.kinds
    assert len(batch[:0].placed) == 0


@pytest.mark.gpu
@gpu
def test_a_batch_is_copied_while_the_device_is_busy():
    before = decoded(64, 128)
    before.images = {name: image.pin_memory() for name, image in before.images.items()}
    wanted = before.prepare(torch.device("cpu"))
    device, done = torch.device("cuda"), torch.cuda.Event()
    before.prepare(device)  # the stream and its memory are there
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)
    busy = torch.cuda.Event()
    busy.record()
    torch.cuda.set_sync_debug_mode("error")
    try:
        after = before.prepare(device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    done.record(_copy_stream(device))
    done.synchronize()
    assert not busy.query()  # the copy is there, the work before it is not done
    torch.testing.assert_close(after.images["image"].cpu(), wanted.images["image"])
    assert torch.equal(after.images["mask"].cpu(), wanted.images["mask"])
    assert torch.equal(after.labels["boxes"].rows.cpu(), wanted.labels["boxes"].rows)


def test_a_batch_of_positions_has_latents_and_no_images():
    batch = Batch.of_positions(torch.arange(5, 9), seed=3)
    assert (len(batch), batch.images, batch.ids[:, 0].tolist()) == (4, {}, [5, 6, 7, 8])
    ready = batch.prepare(torch.device("cpu"))
    assert ready.device == torch.device("cpu")
    # the same slots have the same latents in a batch with images, and in a part of it
    torch.testing.assert_close(ready.latents("z", 7)[1:3], batch[1:3].latents("z", 7))
    assert Batch.of_positions(torch.arange(2)).prepare(torch.device("meta")).device.type == "meta"
