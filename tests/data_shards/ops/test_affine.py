"""Affine maps against scipy, and boxes, points and masks against the pixels that were painted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data_shards.ops.affine import Affine, centred, linear, move
from data_shards.ops.geometry import clip_boxes, warp
from data_shards.ragged import Ragged
from tests.support.painted import found_box
from tests.support.samples import batch_of
from tests.support.small_set import photo

SIZE = (40, 56)  # height, width
ANGLES, SCALES = st.floats(-180, 180), st.floats(0.5, 2)
SHEARS = st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
SHIFTS = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))


def matrix(angle=0.0, scale=1.0, shear=(0.0, 0.0), shift=(0.0, 0.0)) -> np.ndarray:
    """[1, 2, 3] from source to target."""
    maps = linear(angle=np.array([angle]), scale=np.array([scale]), shear=np.array([shear]))
    return centred(maps, np.array([shift]), SIZE)


def inverse(to_target: np.ndarray) -> np.ndarray:
    maps = np.linalg.inv(to_target[0, :, :2])
    return np.concatenate([maps, -maps @ to_target[0, :, 2:]], axis=1)[None]


def scipys(plane: np.ndarray, to_source: np.ndarray, **keys) -> np.ndarray:
    """What scipy makes of one plane [h, w]: its coordinates are pixel centres, rows first."""
    maps = to_source[0, ::-1, 1::-1]
    offset = to_source[0, ::-1, 2] + maps @ [0.5, 0.5] - 0.5
    return ndimage.affine_transform(plane, maps, offset, **keys)


def off_edges(to_source: np.ndarray) -> np.ndarray:
    """bool [h, w]: the pixels whose centre is in one source pixel, not on the edge between two."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    places = np.einsum("ij,jhw->ihw", to_source[0], np.stack([x, y, np.ones_like(x)]))
    return (np.abs(places - np.rint(places)) > 1e-3).all(axis=0)


@settings(deadline=None, max_examples=40)
@given(ANGLES, SCALES, SHEARS, SHIFTS)
def test_warps_are_scipys(angle, scale, shear, shift):
    to_source = inverse(matrix(angle, scale, shear, shift))
    image = photo(1, SIZE[1], SIZE[0]).astype(np.float32) / 127.5 - 1
    ours = warp(torch.from_numpy(image).permute(2, 0, 1)[None], to_source)[0].numpy()
    for channel in range(3):
        theirs = scipys(image[:, :, channel], to_source, order=1, mode="grid-constant")
        np.testing.assert_allclose(ours[channel], theirs, atol=2e-3)
    mask = np.random.default_rng(0).integers(0, 9, SIZE, dtype=np.uint8)
    ours = warp(torch.from_numpy(mask)[None, None], to_source)[0, 0].numpy()
    theirs = scipys(mask.astype(float), to_source, order=0, mode="grid-constant", cval=255)
    clear = off_edges(to_source)
    np.testing.assert_array_equal(ours[clear], theirs[clear])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([0.0, 90.0, 180.0, -90.0]), SCALES, SHIFTS)
def test_boxes_follow_what_is_painted(angle, scale, shift):
    box = torch.tensor([[20.0, 14.0, 34.0, 25.0]])
    image = torch.full((1, 3, *SIZE), -1.0)
    image[:, :, 14:25, 20:34] = 1
    mask = (image[:, :1] > 0).to(torch.uint8)
    eyes = torch.tensor([[[20.0, 14.0], [34.0, 25.0], [-1.0, -1.0]]])
    batch = batch_of(
        {"image": image, "mask": mask},
        {"boxes": Ragged.of_lists([box]), "eyes": eyes},
        {"image": "image", "mask": "mask", "boxes": "boxes", "eyes": "points"},
    )
    out = move(batch, matrix(angle, scale, shift=shift), np.array([True]))
    moved = out.labels["boxes"].rows[0].numpy()
    assert out.placed is None
    np.testing.assert_array_equal(out.labels["eyes"][0, 2], [-1, -1])
    if not moved.any():
        return
    found = found_box((out.images["image"][0, 0].numpy() + 1) / 2 * (out.images["mask"][0, 0].numpy() != 255))
    np.testing.assert_allclose(found, moved, atol=0.5 * max(1, scale) + 0.01)
    inside = (moved > 0).all() and moved[2] < SIZE[1] and moved[3] < SIZE[0]
    if inside:
        corners = out.labels["eyes"][0, :2].numpy()
        np.testing.assert_allclose(np.concatenate([corners.min(0), corners.max(0)]), moved, atol=1e-3)
    found = found_box((out.images["mask"][0, 0].numpy() == 1) * 1.0)
    np.testing.assert_allclose(found, moved, atol=0.5 * max(1, scale) + 0.5)


def test_a_turned_box_is_the_upright_one_around_it():
    batch = batch_of(
        {"image": torch.zeros(1, 3, *SIZE)},
        {"boxes": torch.tensor([[18.0, 10.0, 38.0, 30.0]])},
        {"image": "image", "boxes": "boxes"},
    )
    out = move(batch, matrix(45.0), np.array([True])).labels["boxes"][0]
    half = 10 * np.sqrt(2)
    np.testing.assert_allclose(out, [28 - half, 20 - half, 28 + half, 20 + half], rtol=1e-5)


def test_what_is_hardly_visible_is_gone_and_stays_so():
    bounds = np.tile([0, 0, 10, 10], (5, 1))
    boxes = torch.tensor([[2.0, 2, 8, 8], [-50, 0, 5, 9], [9, 9, 40, 40], [8.5, 0, 11, 10], [0, 0, 0, 0]])
    out = clip_boxes(boxes, bounds, absent=boxes)
    np.testing.assert_array_equal(out, [[2, 2, 8, 8], [0] * 4, [0] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_share_of_the_slots_is_moved(share):
    n = 400
    image = torch.from_numpy(photo(2, 8, 8)).permute(2, 0, 1)[None].float() / 127.5 - 1
    batch = batch_of({"image": image.repeat(n, 1, 1, 1)}, {}, {"image": "image"})
    noise = np.random.default_rng(0).random((n, Affine.draws))
    out = Affine(degrees=90, share=share)(batch, noise).images["image"]
    moved = (out != batch.images["image"]).flatten(1).any(dim=1).float().mean()
    assert abs(moved - share) < 0.06
