"""The view: what the decoder does to an image. Fit to the target, random resized crop, flip, colour, halves.

Only numbers are made here, for a whole batch at once, from counted randomness: (seed, position in the stream,
member). The decoders, `images/placed.py` and `loading/dali_view.py`, apply them, so both show the same crops;
labels follow by `placed.py`. Random resized crop: area and log-uniform ratio as in Szegedy et al., "Going
deeper with convolutions", CVPR 2015, section 6, in torchvision's form (10 attempts, then the largest one in
the centre).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.sampling import colour
from data_shards.sampling.placed import Placed

FITS = ("cover", "contain", "stretch")
_ATTEMPTS = 10
# draws of an image: flip, four colour strengths, then the crop: its place, area and ratio of each attempt
_CROP_FROM = 1 + colour.DRAWS
_DRAWS = _CROP_FROM + 2 + 2 * _ATTEMPTS


@dataclass(frozen=True)
class View:
    """What happens to one member of a slot. The defaults change nothing but the size."""

    target: tuple[int, int]  # height, width in pixels of the image that the network sees
    # How the image, or its random crop, fills the target. cover: it is cut to the target's shape, in the
    # middle. contain: all of it is shown, centred, with padding (letterbox). stretch: all of it, each side by
    # its own scale.
    fit: str = "cover"
    crop_area: tuple[float, float] = (1.0, 1.0)  # share of the area that a random crop takes; (1, 1): no crop
    # Width / height of a random crop, least and most, as a multiple of the target's (cover) or the image's
    # own (contain, stretch).
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: float = 0.0  # probability of a mirror image
    brightness: float = 0.0  # x: the factor is drawn from [1 - x, 1 + x]
    contrast: float = 0.0  # the same, about mid-grey
    saturation: float = 0.0  # the same, about luma
    hue: float = 0.0  # x: degrees, drawn from [-x, x]
    halves: bool = False  # a stored image is two, A | B, side by side: each half is an image of its own

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise UserError(f"fit={self.fit} is not known: use {', '.join(FITS)}")
        if min(self.target) < 1:
            raise UserError(f"target={self.target} is not a height and a width: use pixels, at least 1")
        for name, top in (("crop_area", 1.0), ("crop_ratio", np.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                raise UserError(f"{name}=[{low}, {high}] is not a range: use two rising numbers above 0")

    @property
    def crops(self) -> bool:
        """Whether images are cut at random."""
        return tuple(self.crop_area) != (1, 1)


@dataclass(frozen=True)
class DecodePlan:
    """What the decoder does to each of n images."""

    placed: Placed
    colour: np.ndarray | None  # [n, 3, 4] float32: map of RGB on 0..255; None: colours stay
    exact: bool = False  # resize as `pixels.square` does, whatever it costs: evaluation

    def __len__(self) -> int:
        return len(self.placed)

    def __getitem__(self, rows: slice) -> "DecodePlan":
        """Some consecutive images."""
        return DecodePlan(self.placed[rows], None if self.colour is None else self.colour[rows], self.exact)


def draw(
    view: View, seed: int, positions: np.ndarray, member: int, widths: np.ndarray, heights: np.ndarray
) -> DecodePlan:
    """The plan of the images at `positions` [n]: row i depends on nothing but its own arguments.

    widths, heights: [n], of the stored images in pixels. With `halves` the plan has 2 n rows: A and B of the
    first image, A and B of the second, and so on; both halves are cut, flipped and recoloured alike.
    """
    draws = _DRAWS if view.crops else _CROP_FROM
    noise = counter_rng.uniform(counter_rng.key(seed, "augment", member), positions, draws)
    source = _sizes(widths, heights)
    bounds = _bounds(view, source)
    crop = _random_crop(view, noise[:, _CROP_FROM:], bounds) if view.crops else _fixed_crop(view, bounds)
    strengths = (view.brightness, view.contrast, view.saturation, view.hue)
    maps = colour.draw_maps(strengths, noise[:, 1:_CROP_FROM]) if any(strengths) else None
    if view.halves and maps is not None:
        maps = np.repeat(maps, 2, axis=0)
    return DecodePlan(_place(view, source, bounds, crop, noise[:, 0] < view.flip), maps)


def still(view: View, widths: np.ndarray, heights: np.ndarray) -> DecodePlan:
    """The plan of an evaluation, rows as of `draw`: fit and halves of the view, nothing random, exact."""
    source = _sizes(widths, heights)
    bounds = _bounds(view, source)
    placed = _place(view, source, bounds, _fixed_crop(view, bounds), np.zeros(len(source), bool))
    return DecodePlan(placed, None, exact=True)


def side_by_side(plans: Sequence[DecodePlan], each: int) -> DecodePlan:
    """The plans of the members of n slots as one: the rows of slot 0, member after member, then of slot 1.

    each: rows of a plan for an image, 2 of halves.
    """
    if len(plans) == 1:
        return plans[0]

    def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
        tail = parts[0].shape[1:]
        return np.stack([part.reshape(-1, each, *tail) for part in parts], 1).reshape(-1, *tail)

    names = ("source", "crop", "size", "offset", "flip")
    source, crop, size, offset, flip = (
        merged([getattr(plan.placed, name) for plan in plans]) for name in names
    )
    maps = [plan.colour for plan in plans if plan.colour is not None]
    placed = Placed(source, crop, size, offset, flip, plans[0].placed.target)
    return DecodePlan(placed, merged(maps) if maps else None, plans[0].exact)


def _sizes(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(widths), np.asarray(heights)], axis=1).astype(np.int32)


def _bounds(view: View, source: np.ndarray) -> np.ndarray:
    """[n, 2]: width, height that crops are taken from: the image, or one half of it."""
    if not view.halves:
        return source
    if len(source) and source[:, 0].min() < 2:
        raise UserError("an image of 1 pixel in width has no halves: leave halves out")
    return source // np.array([2, 1], np.int32)


def _place(view: View, source: np.ndarray, bounds: np.ndarray, crop: np.ndarray, flip: np.ndarray) -> Placed:
    """Lay crops into the target; each one twice, in both halves, where the view has such."""
    if view.halves:  # an odd column in the middle belongs to neither half
        right = np.zeros_like(crop)
        right[:, 0] = source[:, 0] - bounds[:, 0]
        crop = np.stack([crop, crop + right], axis=1).reshape(-1, 4)
        source, flip = np.repeat(source, 2, axis=0), np.repeat(flip, 2)
    room = np.array(view.target[::-1], np.int32)
    size = np.broadcast_to(room, (len(crop), 2))
    if view.fit == "contain":
        sides = crop[:, 2:].astype(np.int64)
        # one side fills the target, the other follows
        other = np.rint(sides * (room / sides)[:, ::-1]).astype(np.int32)
        wide = room[0] * sides[:, 1] <= room[1] * sides[:, 0]
        fills = np.stack([wide, ~wide], axis=1)
        size = np.where(fills, room, np.clip(other, 1, room))
    return Placed(
        source, crop, size.astype(np.int32), ((room - size) // 2).astype(np.int32), flip, view.target
    )


def _fixed_crop(view: View, bounds: np.ndarray) -> np.ndarray:
    """int32 [n, 4]: all of the image, or for `cover` the largest crop of the target's shape in its middle."""
    sides = bounds
    if view.fit == "cover":
        height, width = view.target
        fitting = np.rint(bounds[:, ::-1] * np.array([width / height, height / width]))
        sides = np.clip(fitting, 1, bounds).astype(np.int32)
    return np.concatenate([(bounds - sides) // 2, sides], axis=1)


def _random_crop(view: View, noise: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """int32 [n, 4] from noise [n, 2 + 2 * _ATTEMPTS]: the first attempt that fits."""
    wide, high = (sides.astype(np.float64)[:, None] for sides in bounds.T)
    (area_low, area_high), (ratio_low, ratio_high) = view.crop_area, view.crop_ratio
    shape = np.full_like(wide, view.target[1] / view.target[0]) if view.fit == "cover" else wide / high
    area = wide * high * (area_low + (area_high - area_low) * noise[:, 2::2])
    low, up = np.log(ratio_low), np.log(ratio_high)
    ratio = np.exp(low + (up - low) * noise[:, 3::2]) * shape
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (width >= 1) & (width <= wide) & (height >= 1) & (height <= high)
    rows, first = np.arange(len(noise)), fits.argmax(axis=1)
    width, height = width[rows, first], height[rows, first]
    wide, high, shape = wide[:, 0], high[:, 0], shape[:, 0]
    x = np.floor(noise[:, 0] * (wide - width + 1))
    y = np.floor(noise[:, 1] * (high - height + 1))
    # none of the attempts fits: the largest crop of an allowed ratio, in the middle
    central_width = np.minimum(wide, np.maximum(1, np.rint(high * (ratio_high * shape))))
    central_height = np.minimum(high, np.maximum(1, np.rint(wide / (ratio_low * shape))))
    found = fits.any(axis=1)
    width, height = np.where(found, width, central_width), np.where(found, height, central_height)
    x = np.where(found, x, (wide - width) // 2)
    y = np.where(found, y, (high - height) // 2)
    return np.stack([x, y, width, height], axis=1).astype(np.int32)
