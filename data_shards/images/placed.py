"""Decode one stored image, or its mask, to where a view places it: cut, resize, recolour, pad, flip.

`sampling/view.py` draws the windows; `loading/dali_view.py` does the same with DALI. A JPEG is decoded at the
DCT scale (1/2, 1/4, 1/8) that its windows allow, unless the pixels are to be exact. Masks take the nearest
pixel.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from data_shards.images.twin import decode_png, is_png

PADDING = 128  # around an image that is fitted into its target: 0 of [-1, 1] but for half a level
UNKNOWN = 255  # of a mask: padding, and pixels without a label
_PNG = b"\x89PNG\r\n\x1a\n"


class Window(NamedTuple):
    """How one image goes into its target: cut `crop`, resize to `size`, lay at `offset`, flip the whole."""

    crop: tuple[int, int, int, int]  # x, y, width, height in pixels of the stored image
    size: tuple[int, int]  # width, height of the resized crop
    offset: tuple[int, int]  # x, y of its upper left corner in the target
    flip: bool  # left and right of the target change places
    target: tuple[int, int]  # height, width

    @property
    def full(self) -> bool:
        """Whether the resized crop covers its target, so that nothing is padded."""
        return self.size == self.target[::-1]


def decode_windows(
    outs: Sequence[np.ndarray],
    jpeg: bytes,
    source: tuple[int, int],
    windows: Sequence[Window],
    *,
    colour: np.ndarray | None = None,
    exact: bool = False,
) -> None:
    """Decode `jpeg`, of `source` (width, height), once; each window of it goes to one of `outs`.

    It may also be the PNG of a twin.
    outs: uint8 [h, w, 3] RGB, contiguous, each of its window's target. colour: float32 [3, 4], a map of RGB
    on 0..255, or None. exact: the whole image is decoded, and resized as `pixels.square` does, whatever it
    costs.
    Raises ValueError where the bytes are not a sound JPEG of that size.
    """
    if is_png(jpeg):
        image = decode_png(jpeg, source)
        for out, window in zip(outs, windows, strict=True):
            _place(out, image, window, 1, colour, exact)
        return
    factor = 1 if exact else min(map(_dct_factor, windows))
    if len(outs) == 1 and colour is None and _whole(windows[0], source):
        if simplejpeg.decode_jpeg_header(jpeg)[1::-1] != source:  # another size would not fit into `out`
            raise ValueError(f"it is not {source[0]}x{source[1]} pixels as the index says")
        simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=False, buffer=outs[0])
        return
    image = _decode(jpeg, source, factor)
    for out, window in zip(outs, windows, strict=True):
        _place(out, image, window, factor, colour, exact)


def lay(out: np.ndarray, image: np.ndarray, window: Window) -> None:
    """Lay the window of a decoded image uint8 [H, W, 3] into `out` [h, w, 3], resized as `pixels.square`."""
    _place(out, image, window, 1, None, exact=True)


def decode_mask(
    out: np.ndarray, png: bytes, stored: tuple[int, int], source: tuple[int, int], window: Window
) -> None:
    """Decode a mask to `out` uint8 [h, w] of the window's target; the padding is UNKNOWN.

    stored: width and height of the mask itself; source: those of its image, which the window speaks of.
    Raises ValueError where the bytes are not a grey 8-bit PNG of the stored size.
    """
    if png[:8] != _PNG or len(png) < 33 or struct.unpack_from(">II", png, 16) != stored:
        raise ValueError(f"it is not a PNG of {stored[0]}x{stored[1]} pixels as the index says")
    mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError("it is not a sound grey PNG of 8 bits")
    place_mask(out, mask, source, window)


def place_mask(out: np.ndarray, mask: np.ndarray, source: tuple[int, int], window: Window) -> None:
    """Lay the window of `mask` [H, W], the nearest pixels of it, into `out` [h, w] of the same dtype.

    The mask covers the whole image of `source` (width, height) and may have another size. The padding is
    UNKNOWN.
    """
    rows = _nearest(window.crop[1], window.crop[3], window.size[1], source[1], mask.shape[0])
    columns = _nearest(window.crop[0], window.crop[2], window.size[0], source[0], mask.shape[1])
    x, y = window.offset
    out[...] = UNKNOWN
    out[y : y + len(rows), x : x + len(columns)] = mask[rows[:, None], columns]
    if window.flip:
        out[...] = out[:, ::-1].copy()


def recolour(out: np.ndarray, window: Window, colour: np.ndarray) -> None:
    """Recolour an image uint8 [h, w, 3] but its padding. colour: float32 [3, 4], a map of RGB on 0..255."""
    x, y = window.offset
    width, height = window.size
    if window.flip:
        x = window.target[1] - x - width
    part = out[y : y + height, x : x + width]
    part[...] = cv2.transform(part, colour)


def _nearest(low: int, length: int, size: int, source: int, stored: int) -> np.ndarray:
    """[size]: which of `stored` pixels along a side holds the centre of each target pixel; no rounding."""
    twice = 2 * size * low + (2 * np.arange(size, dtype=np.int64) + 1) * length  # in 1 / (2 size) of a pixel
    return twice * stored // (2 * size * source)


def _dct_factor(window: Window) -> int:
    (_, _, wide, high), (width, height) = window.crop, window.size
    factor = 1
    while factor < 8 and wide >= 2 * factor * width and high >= 2 * factor * height:
        factor *= 2
    return factor


def _whole(window: Window, source: tuple[int, int]) -> bool:
    """Whether the stored pixels are the target's already."""
    return window.full and not window.flip and window.size == source and window.crop == (0, 0, *source)


def _decode(jpeg: bytes, source: tuple[int, int], factor: int) -> np.ndarray:
    """uint8 [h, w, 3] RGB, each side divided by `factor` and rounded up."""
    scaled = (-(-source[0] // factor), -(-source[1] // factor))
    image = simplejpeg.decode_jpeg(
        jpeg,
        "RGB",
        fastdct=False,
        fastupsample=False,
        min_width=scaled[0] if factor > 1 else 0,
        min_height=scaled[1] if factor > 1 else 0,
        min_factor=factor,
    )
    if image.shape[1::-1] != scaled:
        raise ValueError(f"it is not {source[0]}x{source[1]} pixels as the index says")
    return image


def _place(
    out: np.ndarray,
    image: np.ndarray,
    window: Window,
    factor: int,
    colour: np.ndarray | None,
    exact: bool,
) -> None:
    dst = out if window.full and not window.flip and colour is None else None
    x, y, wide, high = window.crop
    if factor > 1:
        part = _cut_scaled(image, tuple(value / factor for value in window.crop), window.size, dst)
    else:
        part = image[y : y + high, x : x + wide]
        if (wide, high) != window.size:
            part = resize_exactly(part, window.size) if exact else resize(part, window.size, dst)
    if colour is not None:
        part = cv2.transform(part, colour)
    if window.full and window.flip:
        cv2.flip(part, 1, dst=out)
    elif part is not out:
        if not window.full:
            out[...] = PADDING
        x, y = window.offset
        if window.flip:
            x, part = window.target[1] - x - part.shape[1], part[:, ::-1]
        out[y : y + part.shape[0], x : x + part.shape[1]] = part


def resize(image: np.ndarray, size: tuple[int, int], dst: np.ndarray | None = None) -> np.ndarray:
    """Resize uint8 [h, w, 3] to `size` (width, height), fast; antialiased where both sides shrink: training.

    Averages areas where both sides shrink, else bilinear: area mode takes nearest pixels on a growing side.
    Between 1 and 2 times too large, by way of exactly 2 times: its 2 x 2 means are as close to an antialiased
    filter as OpenCV's area mode at a broken ratio, in a third to two thirds of the time.
    """
    (high, wide), (width, height) = image.shape[:2], size
    if wide < width or high < height:
        return cv2.resize(image, size, dst=dst, interpolation=cv2.INTER_LINEAR)
    if wide <= 3 * width and high <= 3 * height:
        image = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, size, dst=dst, interpolation=cv2.INTER_AREA)


def resize_exactly(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [h, w, c] to `size` (width, height) as `pixels.square` does: by area, or cubic to grow.

    Where one side shrinks and the other grows, the shrinking one comes first.
    """
    high, wide = image.shape[:2]
    smaller = (min(wide, size[0]), min(high, size[1]))
    out = np.ascontiguousarray(image)
    if smaller != (wide, high):
        out = cv2.resize(out, smaller, interpolation=cv2.INTER_AREA)
    if smaller != size:
        out = cv2.resize(out, size, interpolation=cv2.INTER_CUBIC)
    return out.reshape(size[1], size[0], image.shape[2])


def _cut_scaled(
    image: np.ndarray, crop: tuple[float, ...], size: tuple[int, int], dst: np.ndarray | None
) -> np.ndarray:
    """Cut a crop with fractional edges: whole pixels of an image at 1/8 scale would shift it visibly."""
    (x, y, wide, high), (width, height) = crop, size
    if wide >= 2 * width or high >= 2 * height:  # bilinear samples would alias; whole pixels are small here
        left, top, right, bottom = (round(edge) for edge in (x, y, x + wide, y + high))
        return resize(image[top : max(bottom, top + 1), left : max(right, left + 1)], size, dst)
    across, down = wide / width, high / height
    to_source = np.array([[across, 0, x + across / 2 - 0.5], [0, down, y + down / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, to_source, size, dst, flags, cv2.BORDER_REPLICATE)
