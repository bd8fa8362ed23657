"""Jpeg: what compression does to an image: colour transform, subsampling, DCT and quantising, without bytes.

Written out in tensors after ITU-T T.81, with the tables of its Annex K and the qualities of libjpeg, so it
runs where the batch is. It is within about a grey level of libjpeg; a figure that depends on it uses
simplejpeg.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_shards.batch import Batch
from data_shards.ops.base import Op, change_rows, upload

_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
_FREQUENCY, _PLACE = np.arange(8)[:, None], np.arange(8)[None]
_DCT = np.cos((2 * _PLACE + 1) * _FREQUENCY * np.pi / 16) / 2  # orthonormal: T.81, A.3.3
_DCT[0] /= np.sqrt(2)


class Jpeg(Op):
    """Compress each chosen slot at a random quality.

    quality: least and most, whole numbers of 1 to 100. subsample: halve both sides of the colour planes
    (4:2:0). share: of the slots. Masks, boxes and points stay.
    """

    draws = 2

    def __init__(
        self, *, quality: tuple[int, int] = (40, 95), subsample: bool = True, share: float = 0.5
    ) -> None:
        if not 1 <= quality[0] <= quality[1] <= 100:
            raise ValueError(f"quality={quality} is not a range: use two rising numbers from 1 to 100")
        self.quality, self.subsample, self.share = quality, subsample, share

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        low, high = self.quality
        quality = low + np.floor(noise[:, 1] * (high - low + 1)).astype(int)
        images = {**batch.images}
        for name in batch.named("image"):
            images[name] = change_rows(
                images[name],
                noise[:, 0] < self.share,
                lambda part, rows: compress(part, quality[rows], subsample=self.subsample),
            )
        return replace(batch, images=images)


def compress(images: Tensor, quality: np.ndarray, *, subsample: bool) -> Tensor:
    """RGB images [n, 3, h, w] in [-1, 1] after compression at `quality` [n]; whole grey levels come out."""
    height, width = images.shape[-2:]
    unit = 16 if subsample else 8
    padding = (0, -width % unit, 0, -height % unit)
    levels = functional.pad(((images + 1) * 127.5).round(), padding, mode="replicate")
    planes = (_colours(levels, _TO_YCC)).round() - upload(np.array([128, 0, 0]), images.device)[:, None, None]
    luma, chroma = planes[:, :1], planes[:, 1:]
    if subsample:
        chroma = functional.avg_pool2d(chroma, 2).round()
    luma = _quantise(luma, tables(_LUMINANCE, quality))
    chroma = _quantise(chroma, tables(_CHROMINANCE, quality))
    if subsample:  # the triangle filter of libjpeg
        chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()
    out = _colours(torch.cat([luma + 128, chroma], dim=1), _TO_RGB).round().clamp_(0, 255)
    return (out / 127.5 - 1)[..., :height, :width]


def tables(base: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """int64 [n, 8, 8]: the steps of a base table at qualities [n], as libjpeg scales them."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((base * scale[:, None, None] + 50) // 100, 1, 255)


def _colours(planes: Tensor, matrix: np.ndarray) -> Tensor:
    first, second, third = (planes[:, at : at + 1] for at in range(3))
    m = upload(matrix, planes.device)[:, :, None, None]
    return m[:, 0] * first + m[:, 1] * second + m[:, 2] * third


def _quantise(planes: Tensor, steps: np.ndarray) -> Tensor:
    """Planes [n, c, h, w] about 0 after quantising their 8 x 8 blocks: whole levels in -128..127."""
    n, c, height, width = planes.shape
    dct, step = upload(_DCT, planes.device), upload(steps, planes.device)[:, None, None, None]
    blocks = planes.reshape(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    kept = ((dct @ blocks @ dct.T) / step).round() * step
    out = (dct.T @ kept @ dct).round().clamp_(-128, 127)
    return out.transpose(3, 4).reshape(planes.shape)
