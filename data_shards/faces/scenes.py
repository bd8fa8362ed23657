"""Procedural scenes: several people before clutter, partly hidden by each other and by things.

Made of the faces of `generator.py`, for detection and segmentation. A scene is a pure function of (seed,
number): about one in twelve shows nobody. Nearer people are larger and stand before the others.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from data_shards.errors import UserError
from data_shards.faces.canvas import background
from data_shards.faces.generator import draw
from data_shards.faces.traits import Draws

MIN_SIZE, MAX_SIZE = 64, 1024
MOST_FACES = 12
PEOPLE = 1 << 20  # different people of all scenes of a seed
_SMALLEST = 32  # pixels at which a person is drawn; one that is smaller is shrunk
_TALL = (0.16, 0.75)  # of a person's square, as a share of the scene's shorter side
_APART = 0.35  # of a face that another one may cover at most when both are placed, as IoU
_TRIES = 8
_VISIBLE = (
    0.15,
    0.6,
)  # shares of a face seen: below the first it is not to be found, below the second occluded


@dataclass(frozen=True)
class Scene:
    """One scene and what it shows. Boxes are x, y, width, height in pixels, cut to the image."""

    image: np.ndarray  # uint8 [h, w, 3], RGB
    person: np.ndarray  # uint8 [h, w]: 1 where a person is seen, with hair, clothes and what is worn
    boxes: np.ndarray  # float32 [k, 4]: faces from hairline to chin, their hidden parts too
    visible: np.ndarray  # float32 [k]: the share of each face that is seen
    area: np.ndarray  # float32 [k]: pixels of each face that are seen
    points: np.ndarray  # float32 [k, 5, 2]: `Face.five_points`, hidden ones and those beyond the image too

    @property
    def is_ignored(self) -> np.ndarray:
        """bool [k]: faces of which too little is seen to count."""
        return self.visible < _VISIBLE[0]

    @property
    def is_occluded(self) -> np.ndarray:
        """bool [k]: faces of which a good part is hidden."""
        return self.visible < _VISIBLE[1]


def draw_scene(number: int, *, seed: int = 0, size: int = 256, most: int = 5) -> Scene:
    """Draw scene `number`; its longer side has `size` pixels. most: people of a scene, at most.

    Raises UserError for a value out of range.
    """
    for key, value, low, high in (
        ("number", number, 0, 2**31),
        ("seed", seed, 0, 2**63 - 1),
        ("size", size, MIN_SIZE, MAX_SIZE),
        ("faces", most, 1, MOST_FACES),
    ):
        if not low <= value <= high:
            raise UserError(f"{key}={value} is out of range: use {low} to {high}")
    draws = Draws(seed, 2, number, count=512)
    shorter = round(size * draws.uniform(0.7, 1.0))
    width, height = (size, shorter) if draws.flag(0.6) else (shorter, size)
    image = np.ascontiguousarray(background(size, draws)[:height, :width])
    _clutter(image, draws, count=3 + draws.choice((1,) * 8))
    owner = np.zeros((height, width), np.uint8)  # who is seen in each pixel, from 1; 0 nobody
    # box, pixels and landmarks of each face if nothing hid it
    faces: list[tuple[np.ndarray, int, np.ndarray]] = []
    seen = np.zeros((height, width), np.uint8)  # whose face, likewise
    for square, x, y in _places(width, height, draws, most):
        person = int(draws.generator.integers(PEOPLE))
        faces.append(_paste(image, owner, seen, (person, number, seed), (square, x, y), len(faces) + 1))
    for _ in range(draws.choice((4, 3, 2, 1))):
        _hide(image, owner, seen, draws)
    pixels = np.bincount(seen.reshape(-1), minlength=len(faces) + 1)[1:]
    boxes, shares = _cut([box for box, _, _ in faces], width, height)
    whole = np.array([max(count, 1) for _, count, _ in faces], np.float32)
    points = np.array([each for _, _, each in faces], np.float32).reshape(-1, 5, 2)
    kept = (shares > 0) & (pixels > 0)
    return Scene(
        image=_exposed(image, draws),
        person=(owner > 0).astype(np.uint8),
        boxes=boxes[kept],
        visible=np.minimum(pixels / whole, 1).astype(np.float32)[kept],
        area=pixels.astype(np.float32)[kept],
        points=points[kept],
    )


def _places(width: int, height: int, draws: Draws, most: int) -> list[tuple[int, int, int]]:
    """(side, x, y) of the square of each person, the smallest first."""
    count = 0 if draws.flag(1 / 12) else 1 + draws.choice((1,) * most)
    low, high = np.log(_TALL)
    places: list[tuple[int, int, int]] = []
    for side in sorted(float(np.exp(draws.uniform(low, high))) for _ in range(count)):
        square = max(16, round(side * min(width, height)))
        for _ in range(_TRIES):
            x = round(draws.uniform(-0.3 * square, width - 0.7 * square))
            y = round(draws.uniform(-0.15 * square, height - 0.75 * square))
            if all(_overlap((square, x, y), other) < _APART for other in places):
                places.append((square, x, y))
                break
    return places


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Intersection over union of the middles of two squares, where their faces are."""
    sides, corners = zip(
        *((0.6 * side, (x + 0.2 * side, y + 0.2 * side)) for side, x, y in (one, other)), strict=True
    )
    shared = 1.0
    for axis in (0, 1):
        low = max(corner[axis] for corner in corners)
        high = min(corner[axis] + side for corner, side in zip(corners, sides, strict=True))
        shared *= max(0.0, high - low)
    return shared / (sides[0] ** 2 + sides[1] ** 2 - shared)


def _paste(
    image: np.ndarray,
    owner: np.ndarray,
    seen: np.ndarray,
    who: tuple[int, int, int],
    where: tuple[int, int, int],
    number: int,
) -> tuple[np.ndarray, int, np.ndarray]:
    """Paint one person before all others; returns box, pixels and landmarks [5, 2] of the whole face.

    who: identity, sample, seed. where: side, x, y of its square. number: of the person in the scene.
    """
    square, x, y = where
    drawn = max(square, _SMALLEST)
    face = draw(who[0], who[1], seed=who[2], size=drawn)
    pixels = face.image
    if drawn != square:
        pixels = np.asarray(cv2.resize(pixels, (square, square), interpolation=cv2.INTER_AREA), np.uint8)
    person, skin = (
        cv2.resize(each.astype(np.uint8), (square, square), interpolation=cv2.INTER_NEAREST)
        for each in (face.person, face.face)
    )
    height, width = owner.shape
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + square, width), min(y + square, height)
    inner = (slice(top - y, bottom - y), slice(left - x, right - x))
    outer = (slice(top, bottom), slice(left, right))
    covered = person[inner] > 0
    image[outer][covered] = pixels[inner][covered]
    owner[outer][covered] = number
    seen[outer][covered] = 0
    seen[outer][skin[inner] > 0] = number
    box = face.box * (square / drawn) + np.array([x, y, 0, 0], np.float32)
    points = face.five_points * (square / drawn) + np.array([x, y], np.float32)
    return box, int(skin.sum()), points


def _clutter(image: np.ndarray, draws: Draws, *, count: int) -> None:
    """Paint shapes of any colour, some of them round and skin-coloured as faces are."""
    height, width = image.shape[:2]
    for _ in range(count):
        centre = (round(draws.uniform(0, width)), round(draws.uniform(0, height)))
        axes = tuple(max(2, round(draws.uniform(0.02, 0.22) * width)) for _ in range(2))
        tone = draws.uniform(0.25, 1.0)
        skin = (round(235 * tone), round(185 * tone), round(150 * tone))
        colour = skin if draws.flag(0.35) else tuple(round(draws.uniform(0, 255)) for _ in range(3))
        kind, turn = draws.choice((3, 2, 2)), draws.uniform(0, 180)
        if kind == 0:
            cv2.ellipse(image, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = cv2.boxPoints((centre, axes, turn)).astype(np.int32)
            cv2.fillPoly(image, [corners], colour, cv2.LINE_AA)
        else:
            end = (round(draws.uniform(0, width)), round(draws.uniform(0, height)))
            cv2.line(image, centre, end, colour, max(1, round(0.02 * width)), cv2.LINE_AA)


def _hide(image: np.ndarray, owner: np.ndarray, seen: np.ndarray, draws: Draws) -> None:
    """Paint a bar or a block before everybody."""
    height, width = owner.shape
    centre = (draws.uniform(0, width), draws.uniform(0, height))
    long = draws.flag(0.5)
    sides = (
        draws.uniform(0.6, 1.4) * width if long else draws.uniform(0.08, 0.25) * width,
        draws.uniform(0.02, 0.06) * width if long else draws.uniform(0.08, 0.25) * height,
    )
    corners = cv2.boxPoints((centre, sides, draws.uniform(0, 180))).astype(np.int32)
    colour = tuple(round(draws.uniform(0, 255)) for _ in range(3))
    cv2.fillPoly(image, [corners], colour)
    cv2.fillPoly(owner, [corners], 0)
    cv2.fillPoly(seen, [corners], 0)


def _cut(boxes: list[np.ndarray], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(boxes float32 [k, 4] cut to the image, share [k] of each that is left)."""
    all_boxes = np.array(boxes, np.float32).reshape(-1, 4)
    low = np.clip(all_boxes[:, :2], 0, [width, height])
    high = np.clip(all_boxes[:, :2] + all_boxes[:, 2:], 0, [width, height])
    cut = np.concatenate([low, high - low], axis=1).astype(np.float32)
    return cut, cut[:, 2:].prod(axis=1) / np.maximum(all_boxes[:, 2:].prod(axis=1), 1e-6)


def _exposed(image: np.ndarray, draws: Draws) -> np.ndarray:
    """The image with exposure and noise of one camera."""
    gain, noise = draws.uniform(0.75, 1.2), draws.uniform(0, 5)
    grain = draws.generator.standard_normal(image.shape, np.float32) * noise
    return np.clip(image * np.float32(gain) + grain + 0.5, 0, 255).astype(np.uint8)
