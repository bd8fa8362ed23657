"""Mixup, cutmix and mosaic: partners, shares, labels of both, and boxes where they are painted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_shards.batch import Batch
from data_shards.ops.base import common_unit, join, partners
from data_shards.ops.cutmix import Cutmix
from data_shards.ops.mixing import MIX, beta
from data_shards.ops.mixup import Mixup
from data_shards.ops.mosaic import Mosaic
from data_shards.ragged import Ragged
from data_shards.sampling.placed import Placed
from tests.support.samples import CLASSES, PLAIN, batch_of, samples

N, UNIT = 16, 4


def noise_of(op, seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).random((n, op.draws))


@given(st.integers(2, 16), st.integers(1, 4), st.integers(1, 15), st.integers(0, 99))
def test_partners_are_others_of_the_unit_each_used_alike(unit, units, count, seed):
    count = min(count, unit - 1)
    others = partners(np.random.default_rng(seed).random((unit * units, count)), unit)
    slots = np.arange(unit * units)
    assert (others // unit == slots[:, None] // unit).all()
    assert (others != slots[:, None]).all()
    assert all(len(set(row)) == count for row in others.tolist())
    assert (np.bincount(others.reshape(-1), minlength=len(slots)) == count).all()


def test_offsets_are_drawn_alike_and_a_unit_can_be_too_small():
    others = partners(np.random.default_rng(0).random((4 * 3000, 3)), 4)[::4] % 4
    counts = np.unique(others, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3
    with pytest.raises(ValueError, match="no 4 partners"):
        partners(np.zeros((4, 4)), 4)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_shares_have_the_beta_distribution(alpha):
    uniform = (np.arange(20_000) + 0.5) / 20_000
    np.testing.assert_allclose(beta(alpha, uniform), stats.beta(alpha, alpha).ppf(uniform), atol=2e-4)
    assert (beta(alpha, np.array([0.0, 1 - 2**-53])) == [0, 1]).all() or alpha >= 0.5


def test_mixup_is_a_weighted_mean_and_names_both_labels():
    op = Mixup(alpha=0.5, share=0.7, unit=UNIT)
    before, noise = samples(np.arange(N), PLAIN), noise_of(op, 0)
    after, other = op(before, noise), partners(noise[:, :1], UNIT)[:, 0]
    mix = after.labels[MIX].numpy()
    image = before.images["image"].numpy()
    own = mix[:, None, None, None]
    np.testing.assert_allclose(after.images["image"], image * own + image[other] * (1 - own), atol=1e-6)
    assert (mix == 1).any()
    np.testing.assert_array_equal(after.labels["age.partner"], before.labels["age"][other])
    np.testing.assert_array_equal(after.labels["age"], before.labels["age"])
    assert after.kinds["age.partner"] == "value"
    for slot in range(N):
        boxes = [before.labels["boxes"].of(slot)] if mix[slot] > 0 else []
        boxes += [before.labels["boxes"].of(other[slot])] if mix[slot] < 1 else []
        assert torch.equal(after.labels["boxes"].of(slot), torch.cat(boxes))


def test_cutmix_takes_one_rectangle_and_states_its_share():
    op = Cutmix(share=0.8, unit=UNIT)
    before, noise = samples(np.arange(N), CLASSES), noise_of(op, 1)
    after, other = op(before, noise), partners(noise[:, :1], UNIT)[:, 0]
    cut = op._rectangles(noise, before.size)
    for slot in range(N):
        x0, y0, x1, y1 = cut[slot]
        for name in ("image", "mask"):
            wanted = before.images[name][slot].clone()
            wanted[:, y0:y1, x0:x1] = before.images[name][other[slot], :, y0:y1, x0:x1]
            assert torch.equal(after.images[name][slot], wanted)
        assert abs(after.labels[MIX][slot] - (1 - (x1 - x0) * (y1 - y0) / (24 * 32))) < 1e-6


def painted(boxes: list[list[float]], size: tuple[int, int], content: np.ndarray | None = None) -> Batch:
    """Slot i is black but for its box, which is as bright as its number says."""
    n = len(boxes)
    image, mask = torch.full((n, 3, *size), -1.0), torch.zeros(n, 1, *size, dtype=torch.uint8)
    for slot, (x0, y0, x1, y1) in enumerate(np.array(boxes).astype(int)):
        image[slot, :, y0:y1, x0:x1] = shade(slot, n)
        mask[slot, :, y0:y1, x0:x1] = slot + 1
    placed = None
    if content is not None:
        sides = (content[:, 2:] - content[:, :2]).astype(np.int32)
        crop = np.concatenate([np.zeros_like(sides), sides], axis=1)
        placed = Placed(sides, crop, sides, content[:, :2].astype(np.int32), np.zeros(n, bool), size)
    return batch_of(
        {"image": image, "mask": mask},
        {
            "boxes": Ragged.of_lists([torch.tensor([box]) for box in boxes]),
            "slot": Ragged.of_lists([torch.tensor([slot]) for slot in range(n)]),
            "eyes": Ragged.of_lists([torch.tensor([[box[:2], box[2:]]]) for box in boxes]),
        },
        {"image": "image", "mask": "mask", "boxes": "boxes", "slot": "class", "eyes": "points"},
        placed,
    )


def shade(slot: int, n: int) -> float:
    return (slot + 1) / n


def bounding(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_mosaics_carry_boxes_points_and_masks_with_the_pixels(seed, padded):
    rng, n, size = np.random.default_rng(seed), 4, (48, 64)
    content = np.array(
        [[rng.integers(0, 9), rng.integers(0, 9), 64 - rng.integers(0, 9), 48] for _ in range(n)]
    )
    corner = content[:, :2] + rng.integers(0, 14, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(8, 24, (n, 2))], axis=1).astype(float)
    before = painted(boxes.tolist(), size, content if padded else None)
    op = Mosaic(scale=(0.5, 1.5), unit=4)
    after = op(before, noise_of(op, seed, n))
    for slot in range(n):
        moved, names = after.labels["boxes"].of(slot).numpy(), after.labels["slot"].of(slot).tolist()
        eyes = after.labels["eyes"].of(slot).numpy()
        assert sorted(names) == list(range(n))
        mask = after.images["mask"][slot, 0].numpy()
        for name, box, corners in zip(names, moved, eyes, strict=True):
            if not box.any():
                assert (mask == name + 1).sum() <= 0.25 * np.prod(boxes[name, 2:] - boxes[name, :2]) * 2.25
                continue
            found = bounding(mask == name + 1)
            np.testing.assert_allclose(found, box, atol=1.0)  # nearest pixels of either grid
            known = corners[(corners != -1).any(axis=1)]
            assert all(np.abs(point - box.reshape(2, 2)).min(axis=0).max() < 1e-3 for point in known)
            x0, y0, x1, y1 = np.rint(box).astype(int)
            middle = after.images["image"][slot, 0, (y0 + y1) // 2, (x0 + x1) // 2]
            assert abs(middle - shade(name, n)) < 0.02


def test_mosaic_tiles_are_the_contents_at_their_scale():
    """At scale 1 every tile is a plain copy: the corner of its content stands at the junction."""
    before, op = samples(np.arange(8), ("image", "mask")), Mosaic(scale=(1, 1), unit=8)
    noise = noise_of(op, 3, 8)
    after = op(before, noise)
    others = np.concatenate([np.arange(8)[:, None], partners(noise[:, 1:4], 8)], axis=1)
    content = before.placed.content()
    for slot in range(8):
        turn = int(noise[slot, 4] * 4)
        x, y = (round(side * (0.25 + 0.5 * noise[slot, 6 + at])) for at, side in enumerate((32, 24)))
        for name, fill in (("image", 0.0), ("mask", 255)):
            wanted = torch.full_like(before.images[name][0], fill)
            for tile in range(4):
                member = others[slot, (tile + turn) % 4]
                x0, y0, x1, y1 = content[member]
                part = before.images[name][member, :, y0:y1, x0:x1]
                rows = slice(max(0, y - (y1 - y0)), y) if tile < 2 else slice(y, min(24, y + y1 - y0))
                columns = slice(max(0, x - (x1 - x0)), x) if tile % 2 == 0 else slice(x, min(32, x + x1 - x0))
                high, wide = rows.stop - rows.start, columns.stop - columns.start
                part = part[:, -high:] if tile < 2 else part[:, :high]
                wanted[:, rows, columns] = part[:, :, -wide:] if tile % 2 == 0 else part[:, :, :wide]
            torch.testing.assert_close(after.images[name][slot], wanted, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="unit=3"):
        Mosaic(unit=3)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_cutmix_boxes_are_around_what_is_left_to_see(seed):
    rng, n, size = np.random.default_rng(seed), 4, (48, 64)
    corner = rng.integers(0, 24, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(8, 24, (n, 2))], axis=1).astype(float)
    batch = painted(boxes.tolist(), size)
    labels = {"boxes": batch.labels["boxes"], "slot": batch.labels["slot"]}
    before = batch_of(
        batch.images, labels, {"image": "image", "mask": "mask", "boxes": "boxes", "slot": "class"}
    )
    op = Cutmix(share=1.0, unit=4)
    after = op(before, noise_of(op, seed, n))
    for slot in range(n):
        mask = after.images["mask"][slot, 0].numpy()
        names, moved = after.labels["slot"].of(slot).tolist(), after.labels["boxes"].of(slot).numpy()
        for name, box in zip(names, moved, strict=True):
            area = np.prod(boxes[name, 2:] - boxes[name, :2])
            if box.any():
                np.testing.assert_array_equal(bounding(mask == name + 1), box)
            else:
                left = mask == name + 1
                assert left.sum() < 0.1 * area or min(np.ptp(bounding(left).reshape(2, 2), axis=0)) < 2


def test_the_common_unit_is_the_least_common_multiple():
    assert common_unit([]) == 1
    assert common_unit([Mosaic(unit=6), Mixup(unit=4)], unit=10) == 60


def test_rows_of_several_slots_are_joined_in_order():
    label = Ragged.of_lists([torch.tensor([0, 1]), torch.tensor([], dtype=torch.int64), torch.tensor([2])])
    joined, slot, column = join(label, np.array([[0, 2], [-1, 0], [1, -1]]))
    assert [joined.of(at).tolist() for at in range(3)] == [[0, 1, 2], [0, 1], []]
    assert slot.tolist() == [0, 0, 0, 1, 1]
    assert column.tolist() == [0, 0, 1, 1, 1]
