"""Compression in tensors against libjpeg with its exact DCT, by Pillow: simplejpeg takes the fast one."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from data_shards.ops.jpeg import Jpeg, compress
from tests.support.small_set import photo


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", [(160, 128), (157, 125), (152, 120)])
@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95, 100])
def test_pixels_are_within_a_grey_level_of_libjpegs(quality, size, subsample):
    stored = photo(1, *size, grain=4.0)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    wanted = simplejpeg.decode_jpeg(file.getvalue(), "RGB", fastdct=False, fastupsample=False).astype(int)
    image = torch.from_numpy(stored).permute(2, 0, 1)[None].float() / 127.5 - 1
    out = compress(image, np.array([quality]), subsample=subsample)
    found = (out[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
    assert np.abs(found - wanted).mean() < 1.0
    lost = np.abs(wanted - stored).mean()
    assert abs(np.abs(found - stored).mean() - lost) < 0.1 * lost + 0.3


def test_each_slot_has_a_quality_of_its_own():
    image = torch.from_numpy(photo(2, 32, 32)).permute(2, 0, 1)[None].float() / 127.5 - 1
    both = compress(image.repeat(2, 1, 1, 1), np.array([10, 90]), subsample=True)
    for row, quality in enumerate((10, 90)):
        assert torch.equal(both[row : row + 1], compress(image, np.array([quality]), subsample=True))
    assert (both[0] - image[0]).abs().mean() > 2 * (both[1] - image[0]).abs().mean()


@pytest.mark.parametrize("quality", [(0, 50), (60, 50), (50, 101)])
def test_a_quality_out_of_its_range_is_refused(quality):
    with pytest.raises(ValueError, match="quality="):
        Jpeg(quality=quality)
