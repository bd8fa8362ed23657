"""Every op: equal at any number of ranks, values in their range, other slots untouched, nothing read."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data_shards.errors import UserError
from data_shards.ops.affine import Affine
from data_shards.ops.base import run_ops
from data_shards.ops.colour import Colour
from data_shards.ops.cutmix import Cutmix
from data_shards.ops.erasing import Erasing
from data_shards.ops.hsv import Hsv
from data_shards.ops.jpeg import Jpeg
from data_shards.ops.mixup import Mixup
from data_shards.ops.mosaic import Mosaic
from data_shards.ops.randaugment import RandAugment
from data_shards.ragged import Ragged
from tests.support.samples import CLASSES, DETECTION, KINDS, PLAIN, assert_equal, samples

UNIT = 4
OPS = {
    "affine": (Affine(degrees=30, scale=(0.7, 1.4), shear=0.2, shift=0.2, share=0.7), tuple(KINDS)),
    "colour": (
        Colour(brightness=0.4, contrast=0.4, saturation=0.4, hue=30, gamma=0.5, share=0.7),
        tuple(KINDS),
    ),
    "hsv": (Hsv(hue=40, saturation=0.5, value=0.4, share=0.7), tuple(KINDS)),
    "erasing": (Erasing(fill="colour", share=0.7), tuple(KINDS)),
    "jpeg": (Jpeg(share=0.7), tuple(KINDS)),
    "randaugment": (RandAugment(count=3, magnitude=0.6, share=0.8), tuple(KINDS)),
    "mixup": (Mixup(alpha=0.4, share=0.7, unit=UNIT), PLAIN),
    "cutmix": (Cutmix(share=0.7, unit=UNIT), CLASSES),
    "mosaic": (Mosaic(scale=(0.4, 1.2), share=0.7, unit=UNIT), DETECTION),
}
FIRST, N = 24 * UNIT, 6 * UNIT


def run(name: str, positions: np.ndarray):
    op, names = OPS[name]
    return run_ops([op], samples(positions, names))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", OPS)
def test_ranks_make_what_one_rank_makes(name, world):
    whole, share = run(name, np.arange(FIRST, FIRST + N)), N // world
    for rank in range(world):
        rows = slice(rank * share, (rank + 1) * share)
        assert_equal(run(name, np.arange(FIRST, FIRST + N)[rows]), whole[rows])


@pytest.mark.parametrize("name", OPS)
def test_units_may_come_in_any_order(name):
    whole = run(name, np.arange(FIRST, FIRST + N))
    order = np.random.default_rng(0).permutation(N // UNIT)
    positions = np.arange(FIRST, FIRST + N).reshape(-1, UNIT)[order].reshape(-1)
    shuffled = run(name, positions)
    for place, unit in enumerate(order):
        here, there = (slice(at * UNIT, (at + 1) * UNIT) for at in (place, unit))
        assert_equal(shuffled[here], whole[there])


@pytest.mark.parametrize("name", OPS)
def test_values_stay_in_their_range_and_something_changes(name):
    positions = np.arange(FIRST, FIRST + N)
    before, after = samples(positions, OPS[name][1]), run(name, positions)
    image = after.images["image"]
    assert image.dtype == torch.float32
    assert image.abs().max() <= 1
    changed = (image != before.images["image"]).flatten(1).any(dim=1)
    assert changed.sum() >= 6
    assert (~changed).any()  # the slots that were not chosen are bit-equal
    if "mask" in after.images:
        assert after.images["mask"].dtype == torch.uint8
        assert set(after.images["mask"].unique().tolist()) <= {*range(6), 255}
    boxes = after.labels["boxes"].rows
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([32.0, 24.0]).repeat(2)).all()
    assert np.array_equal(after.labels["boxes"].starts, after.labels["species"].starts)


@pytest.mark.parametrize("name", OPS)
def test_an_op_that_comes_twice_draws_other_numbers(name):
    op, names = OPS[name]
    if name in ("mixup", "cutmix"):
        pytest.skip("labels are mixed once")
    positions = np.arange(FIRST, FIRST + N)
    once = run(name, positions)
    again = run_ops([op], once)
    twice = run_ops([op, op], samples(positions, names))
    assert not torch.equal(twice.images["image"], again.images["image"])


class Reads(TorchDispatchMode):
    """Counts reads of single values from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        assert func not in (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", OPS)
def test_nothing_is_read_from_the_device(name):
    positions = np.arange(FIRST, FIRST + N)
    batch, (op, _) = samples(positions, OPS[name][1]), OPS[name]
    with Reads() as reads:
        run_ops([op], batch)
    assert reads.count == 0


@pytest.mark.parametrize("name", ["mixup", "cutmix", "mosaic"])
@pytest.mark.parametrize(
    ("positions", "named"),
    [
        (np.arange(6), "6 slots are not whole units of the 4"),
        (np.arange(2, 10), "do not start at a multiple of 4"),
        (np.array([0, 1, 3, 2]), "do not start at a multiple of 4"),
    ],
)
def test_slots_that_are_not_whole_units_are_refused(name, positions, named):
    with pytest.raises(UserError, match=named):
        run(name, positions)


@pytest.mark.parametrize(
    ("name", "names", "refused"),
    [
        ("mixup", CLASSES, "mask"),
        ("cutmix", DETECTION, "eyes"),
        ("mosaic", CLASSES, "age"),
    ],
)
def test_labels_without_a_meaning_are_refused_by_name(name, names, refused):
    positions = np.arange(UNIT)
    with pytest.raises(UserError, match=f"{name} has no meaning for `{refused}`"):
        run_ops([OPS[name][0]], samples(positions, names))


def test_labels_are_mixed_once():
    positions = np.arange(UNIT)
    ops = [Cutmix(unit=UNIT), Mixup(unit=UNIT)]
    with pytest.raises(UserError, match="mixed already"):
        run_ops(ops, samples(positions, PLAIN))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("name", OPS)
def test_a_gpu_makes_nearly_the_same_and_never_waits(name):
    positions = np.arange(FIRST, FIRST + N)
    host, batch = run(name, positions), samples(positions, OPS[name][1])
    there = batch.prepare(torch.device("cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = run_ops([OPS[name][0]], there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (out.images["image"].cpu() - host.images["image"]).abs()
    assert difference.mean() < 0.01
    assert isinstance(out.labels["boxes"], Ragged)
    torch.testing.assert_close(out.labels["boxes"].rows.cpu(), host.labels["boxes"].rows, atol=1e-3, rtol=0)
