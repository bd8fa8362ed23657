"""Colours against references for single pixels: numpy, colorsys, Pillow's posterize and solarize."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import stats

from data_shards.ops import randaugment
from data_shards.ops.colour import Colour
from data_shards.ops.erasing import Erasing
from data_shards.ops.hsv import shift_hsv
from data_shards.ops.randaugment import CHANGES, RandAugment
from data_shards.ops.tone import LEVELS, apply_matrix, apply_table
from data_shards.sampling import colour
from tests.support.samples import batch_of
from tests.support.small_set import photo


def image_of(number: int = 1, width: int = 24, height: int = 16) -> torch.Tensor:
    return torch.from_numpy(photo(number, width, height)).permute(2, 0, 1)[None].float() / 127.5 - 1


def levels(image: torch.Tensor) -> np.ndarray:
    """[h, w, 3] in 0..255."""
    return (image[0].permute(1, 2, 0).numpy() + 1) * 127.5


def test_a_map_does_to_images_what_it_does_to_bytes():
    maps = colour.draw_maps((0.3, 0.3, 0.5, 40), np.random.default_rng(0).random((1, 4)))
    out = levels(apply_matrix(image_of(), colour.to_unit_range(maps)))
    wanted = levels(image_of()) @ maps[0, :, :3].T + maps[0, :, 3]
    np.testing.assert_allclose(out, wanted.clip(0, 255), atol=1e-3)


def test_tables_are_linear_between_levels():
    table = np.random.default_rng(0).uniform(0, 255, (1, 256))
    image = torch.linspace(-1, 1, 3000).reshape(1, 3, 10, 100)
    out = (apply_table(image, table).numpy() + 1) * 127.5
    wanted = np.interp((image.numpy().astype(float) + 1) * 127.5, LEVELS, table[0])
    np.testing.assert_allclose(out, wanted, atol=0.02)
    np.testing.assert_allclose(apply_table(image, LEVELS[None]), image, atol=1e-6)


def test_gamma_is_a_power_of_the_level():
    noise = np.full((1, Colour.draws), 0.0)  # the smallest exponent
    batch = batch_of({"image": image_of()}, {}, {"image": "image"})
    out = levels(Colour(gamma=1.0)(batch, noise).images["image"])
    np.testing.assert_allclose(out, 255 * np.sqrt(levels(image_of()) / 255), atol=0.3)


def test_hsv_is_that_of_colorsys():
    turn, more, brighter = np.array([1.7]), np.array([0.6]), np.array([1.3])
    out = levels(shift_hsv(image_of(), turn, more, brighter)) / 255
    for pixel, found in zip(levels(image_of()).reshape(-1, 3) / 255, out.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        wanted = colorsys.hsv_to_rgb((hue + 1.7 / 6) % 1, min(1, saturation * 0.6), min(1, value * 1.3))
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_hsv_leaves_greys_grey():
    grey = torch.linspace(-1, 1, 48).reshape(1, 1, 6, 8).repeat(1, 3, 1, 1)
    out = shift_hsv(grey, np.array([2.0]), np.array([1.5]), np.array([1.0]))
    torch.testing.assert_close(out, grey)


def test_posterize_and_solarize_are_pillows():
    image = Image.fromarray(photo(3, 20, 20))
    level = np.asarray(image).astype(int)
    for name, magnitude, wanted in (
        ("posterize", 0.5, ImageOps.posterize(image, 6)),
        ("solarize", 0.25, ImageOps.solarize(image, 192)),
    ):
        kinds = np.array([[CHANGES.index(name)]])
        table = randaugment._tables(kinds, np.array([[-magnitude]]))[0]
        np.testing.assert_array_equal(table[level], np.asarray(wanted))


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_of_randaugment_changes_what_it_says(name):
    noise = np.full((1, 3), 0.25)
    noise[0, 1] = (CHANGES.index(name) + 0.5) / len(CHANGES)
    boxes = torch.tensor([[8.0, 4.0, 14.0, 10.0]])
    batch = batch_of({"image": image_of()}, {"boxes": boxes}, {"image": "image", "boxes": "boxes"})
    out = RandAugment(count=1, magnitude=0.8)(batch, noise)
    assert torch.equal(out.images["image"], batch.images["image"]) == (name == "identity")
    assert torch.equal(out.labels["boxes"], boxes) == (name not in randaugment._GEOMETRY)


def test_changes_are_composed_in_their_order():
    kinds = np.array([[CHANGES.index("shift_x"), CHANGES.index("rotate")]])
    product = randaugment._geometry(kinds, np.array([[1.0, 1.0]]), (20, 20))
    apart = [randaugment._geometry(kinds[:, at : at + 1], np.ones((1, 1)), (20, 20)) for at in (0, 1)]
    point = np.array([3.0, 7.0])
    for step in apart:
        point = step[0, :, :2] @ point + step[0, :, 2]
    np.testing.assert_allclose(product[0, :, :2] @ [3.0, 7.0] + product[0, :, 2], point)


def test_erased_rectangles_have_the_area_asked_for():
    n = 2000
    noise = np.random.default_rng(0).random((n, Erasing.draws))
    batch = batch_of(
        {"image": torch.ones(n, 3, 64, 64), "mask": torch.zeros(n, 1, 64, 64, dtype=torch.uint8)},
        {},
        {"image": "image", "mask": "mask"},
    )
    out = Erasing(area=(0.1, 0.2), ratio=(0.5, 2.0), share=0.5)(batch, noise).images
    erased = (out["image"] == 0).all(dim=1)
    assert torch.equal(erased, (out["mask"] == 255)[:, 0])
    area = erased.float().mean(dim=(1, 2)).numpy()
    assert abs((area > 0).mean() - 0.5) < 0.04
    assert stats.kstest(area[area > 0], stats.uniform(0.1, 0.1).cdf).pvalue > 1e-3
    with pytest.raises(ValueError, match="fill=noise"):
        Erasing(fill="noise")
