"""DALI places images and masks as the host does: boxes, masks to the pixel, colours but for interpolation."""

import numpy as np
import pytest
import torch

from data_shards.images.placed import PADDING, decode_windows, place_mask, recolour
from data_shards.loading import dali_view
from data_shards.sampling import view
from data_shards.sampling.placed import Placed
from data_shards.sampling.view import FITS, DecodePlan, View
from tests.support.painted import as_jpeg, as_png, found_box, paint
from tests.support.small_set import jpeg, photo

dali = pytest.importorskip("nvidia.dali")
N = 24
TARGET = (72, 96)


def run(
    kind: str,
    padded: bool,
    blobs: list[bytes],
    inputs: tuple[np.ndarray, ...],
    gpu: int | None = None,
) -> np.ndarray:
    names, ndim = (
        (dali_view.IMAGE_TYPES, dali_view.IMAGE_NDIM)
        if kind == "image"
        else (dali_view.MASK_TYPES, dali_view.MASK_NDIM)
    )
    if not padded:
        names, ndim = names[:-1], ndim[:-1]
    types = [getattr(dali.types, name) for name in ("UINT8", *names)]
    device = "cpu" if gpu is None else "mixed"
    fed, count = ([np.frombuffer(blob, np.uint8) for blob in blobs], *inputs), len(types)

    @dali.pipeline_def(batch_size=N, num_threads=2, device_id=gpu, enable_conditionals=True)
    def graph():
        blob, *columns = dali.fn.external_source(
            source=lambda: fed, num_outputs=count, batch=True, dtype=types, ndim=[1, *ndim]
        )
        if kind == "image":
            return dali_view.place_image(dali, blob, columns, target=TARGET, padded=padded, device=device)
        return dali_view.place_mask(dali, blob, columns, target=TARGET, device=device)

    built = graph()
    built.build()
    (out,) = built.run()
    return np.array((out if gpu is None else out.as_cpu()).as_array())


def place(blobs: list[bytes], placed: Placed, padded: bool) -> np.ndarray:
    return run("image", padded, blobs, dali_view.image_inputs(placed, padded=padded))


def sizes_of(seed: int, halves: bool) -> np.ndarray:
    sizes = np.random.default_rng(seed).integers(60, 400, (N // (1 + halves), 2))
    sizes[0] = TARGET[::-1]
    return sizes


def draw(config: View, sizes: np.ndarray, seed: int) -> DecodePlan:
    return view.draw(config, seed, np.arange(len(sizes)), 0, *sizes.T)


VIEWS = [
    pytest.param(
        View(TARGET, fit=fit, crop_area=area, flip=0.5, halves=halves),
        id=f"{fit}-{area[0]}-{'halves' if halves else 'whole'}",
    )
    for fit in FITS
    for area in ((1.0, 1.0), (0.2, 1.0))
    for halves in (False, True)
]


def spread(items: list, config: View) -> list:
    """One entry for each row of the plan: two for an image of two halves."""
    return [item for item in items for _ in range(1 + config.halves)]


@pytest.mark.parametrize("config", VIEWS)
def test_images_are_the_hosts_but_for_interpolation(config):
    sizes = sizes_of(1, config.halves)
    plan = draw(config, sizes, 1)
    blobs = spread([jpeg(photo(n, *size)) for n, size in enumerate(sizes.tolist())], config)
    found = place(blobs, plan.placed, config.fit == "contain")
    for row, blob in enumerate(blobs):
        wanted = np.empty((*TARGET, 3), np.uint8)
        decode_windows([wanted], blob, tuple(plan.placed.source[row]), [plan.placed.window(row)])
        assert np.abs(found[row].astype(int) - wanted).mean() < 3
        x0, y0, x1, y1 = plan.placed.content()[row]
        outside = np.ones(TARGET, bool)
        outside[y0:y1, x0:x1] = False
        assert (found[row][outside] == PADDING).all()


@pytest.mark.parametrize("config", VIEWS)
def test_painted_boxes_are_where_their_labels_say(config):
    sizes = sizes_of(2, config.halves)
    placed = draw(config, sizes, 2).placed
    corner, sides = placed.crop[:, :2], placed.crop[:, 2:]
    boxes = np.rint(np.concatenate([corner + 0.2 * sides, corner + 0.8 * sides], axis=1)).astype(int)
    images = [paint(tuple(size), box) for size, box in zip(placed.source, boxes.tolist(), strict=True)]
    found = place([*map(as_jpeg, images)], placed, config.fit == "contain")
    for row, label in enumerate(placed.boxes(boxes)):
        x0, y0, x1, y1 = placed.content()[row]
        light = np.zeros(TARGET)
        light[y0:y1, x0:x1] = found[row, y0:y1, x0:x1, 0] / 255.0
        pixel = np.tile(np.maximum(1, placed.size[row] / sides[row]), 2)
        assert (np.abs(found_box(light) - label) <= 0.5 * pixel).all()


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("config", VIEWS)
def test_masks_are_the_hosts_to_the_pixel_where_they_have_the_size_of_their_images(config, share):
    different = 0
    for seed in range(4):
        sizes = sizes_of(seed, config.halves)
        placed = draw(config, sizes, seed).placed
        stored = np.rint(placed.source * share).astype(int)
        rng = np.random.default_rng(seed)
        masks = [rng.integers(0, 256, size[::-1], dtype=np.uint8) for size in stored]
        found = run("mask", True, [*map(as_png, masks)], dali_view.mask_inputs(placed, stored))
        for row, mask in enumerate(masks):
            wanted = np.empty(TARGET, np.uint8)
            place_mask(wanted, mask, tuple(placed.source[row].tolist()), placed.window(row))
            different += (found[row, ..., 0] != wanted).sum()
    assert different == 0 if share == 1 else different < 4 * N * 72 * 96 / 500


def test_colour_is_applied_to_what_is_shown():
    config = View(TARGET, fit="contain", brightness=0.5, flip=0.5)
    sizes = sizes_of(3, False)
    plan = draw(config, sizes, 3)
    blobs = [jpeg(photo(n, *size)) for n, size in enumerate(sizes.tolist())]
    found = place(blobs, plan.placed, True)
    for row, blob in enumerate(blobs):
        window, wanted = plan.placed.window(row), np.empty((*TARGET, 3), np.uint8)
        decode_windows([wanted], blob, tuple(sizes[row]), [window], colour=plan.colour[row])
        recolour(found[row], window, plan.colour[row])
        assert np.abs(found[row].astype(int) - wanted).mean() < 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("config", VIEWS)
def test_a_gpu_places_them_as_the_cpu(config):
    sizes = sizes_of(4, config.halves)
    placed = draw(config, sizes, 4).placed
    blobs = spread([jpeg(photo(n, *size)) for n, size in enumerate(sizes.tolist())], config)
    padded = config.fit == "contain"
    inputs = dali_view.image_inputs(placed, padded=padded)
    one, other = (run("image", padded, blobs, inputs, gpu).astype(int) for gpu in (None, 0))
    assert np.abs(one - other).mean() < 3
    masks = [
        np.random.default_rng(n).integers(0, 9, size[::-1], dtype=np.uint8)
        for n, size in enumerate(placed.source)
    ]
    inputs = dali_view.mask_inputs(placed, placed.source)
    one, other = (run("mask", True, [*map(as_png, masks)], inputs, gpu) for gpu in (None, 0))
    np.testing.assert_array_equal(one, other)
