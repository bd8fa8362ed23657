"""Parts of a DALI pipeline that place images and masks as a view says: the counterpart of `images/placed.py`.

A pipeline feeds the arrays of `image_inputs` or `mask_inputs` through `external_source` and calls
`place_image` or `place_mask` in its graph, which needs `enable_conditionals=True`. DALI's module is an
argument: it is imported when a graph is built, not before. Masks equal the host's to the pixel where they
have the size of their images (else a pixel in a thousand is the neighbour's: DALI counts in float32), images
equal the host's but for interpolation.
"""

from typing import Any

import numpy as np

from data_shards.images.placed import PADDING, UNKNOWN
from data_shards.sampling.placed import Placed

# Names of DALI's types and numbers of dimensions of the inputs, in the order of the functions below. The last
# one, the start, is for padded images alone: leave it out (`[:-1]`) where none is.
IMAGE_TYPES, IMAGE_NDIM = ("FLOAT", "FLOAT", "BOOL", "FLOAT", "INT32", "INT32"), (1, 1, 0, 1, 0, 1)
MASK_TYPES, MASK_NDIM = ("FLOAT", "FLOAT", "FLOAT", "INT32", "INT32"), (1, 1, 1, 0, 1)


def image_inputs(placed: Placed, *, padded: bool) -> tuple[np.ndarray, ...]:
    """What `place_image` needs of n images: crop corner and size, if it is resized, to what, flip, start."""
    crop = placed.crop.astype(np.float32)
    resized = (placed.crop[:, 2:] != placed.size).any(axis=1)
    # DALI takes dense arrays only
    inputs = (crop[:, :2].copy(), crop[:, 2:].copy(), resized, *_target_inputs(placed))
    return inputs if padded else inputs[:-1]


def mask_inputs(placed: Placed, stored: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `place_mask` needs of n masks: region's corners, to what it is resized, flip, start.

    stored: [n, 2], width and height of the masks, which cover their whole images and may have another size.
    """
    share = stored / placed.source
    # No rounding of DALI's may move a pixel whose centre is on an edge: a quarter of the finest step, where
    # it can be told from rounding.
    nudge = np.where(stored == placed.source, 0.25 / placed.size, 1e-4)
    corner, end = placed.crop[:, :2], placed.crop[:, :2] + placed.crop[:, 2:]
    region = (np.ascontiguousarray((edges * share + nudge)[:, ::-1], np.float32) for edges in (corner, end))
    return (*region, *_target_inputs(placed))


def _target_inputs(placed: Placed) -> tuple[np.ndarray, ...]:
    """Height and width of the resized crop, the flip, and where the target starts in it (y, x: at most 0)."""
    size = np.ascontiguousarray(placed.size[:, ::-1], np.float32)
    start = np.ascontiguousarray(-placed.offset[:, ::-1], np.int32)
    return size, placed.flip.astype(np.int32), start


def place_image(
    dali: Any,
    jpeg: Any,
    inputs: Any,
    *,
    target: tuple[int, int],
    padded: bool,
    device: str,
    colour: Any = None,
) -> Any:
    """A node of uint8 [h, w, 3] RGB from a node of encoded bytes and the nodes of `image_inputs`.

    target: height, width. padded: whether an image may leave some of its target free (`contain`). device: of
    the decoder, "cpu" or "mixed". colour: a node of maps of RGB on 0..255, float32 [3, 4], which the padding
    is spared. Orientation tags are ignored, as on the host: stored images are upright.
    """
    fn, types = dali.fn, dali.types
    anchor, shape, resized, size, flip, *start = inputs
    image = fn.decoders.image_slice(
        jpeg,
        anchor,
        shape,
        device=device,
        axis_names="WH",
        normalized_anchor=False,
        normalized_shape=False,
        adjust_orientation=False,
    )
    if resized:  # a resize to the size that an image has costs twice its decoding
        image = fn.resize(image, size=size, antialias=True)
    if colour is not None:
        image = fn.coord_transform(image, MT=colour, dtype=types.UINT8)
    if padded:
        image = _pad(fn, image, start[0], target, PADDING)
    return fn.flip(image, horizontal=flip)


def place_mask(dali: Any, png: Any, inputs: Any, *, target: tuple[int, int], device: str) -> Any:
    """A node of uint8 [h, w, 1] from a node of grey PNG bytes and the nodes of `mask_inputs`: nearest pixels.

    target: height, width. device: of the decoder, "cpu" or "mixed". The padding is UNKNOWN.
    """
    fn, types = dali.fn, dali.types
    low, high, size, flip, start = inputs
    mask = fn.decoders.image(png, device=device, output_type=types.GRAY, adjust_orientation=False)
    mask = fn.resize(mask, size=size, roi_start=low, roi_end=high, interp_type=types.INTERP_NN)
    return fn.flip(_pad(fn, mask, start, target, UNKNOWN), horizontal=flip)


def _pad(fn: Any, image: Any, start: Any, target: tuple[int, int], value: int) -> Any:
    return fn.slice(
        image,
        start=start,
        shape=list(target),
        axes=[0, 1],
        out_of_bounds_policy="pad",
        fill_values=value,
    )
